"""`torch.ops.poptorch.*`: the operators that some programs call directly."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import torch

from .._placement.blocks import Block, begin_block
from ..enums import MatMulSerializationMode, OverlapMode
from . import annotations as annotations
from .losses import identity_loss

_REDUCTIONS = ("sum", "mean", "none")
_CASTS = {"FLOAT16": torch.float16, "FLOAT": torch.float32}
_library = torch.library.Library("poptorch", "DEF")
_scopes: List[Any] = []


def _push_name_scope(name: str) -> None:
    _scopes.append(annotations.NameScope(name).__enter__())


def _pop_name_scope() -> None:
    if _scopes:
        _scopes.pop().__exit__()


def _begin_ipu_block(stage: int, phase: int, ipu: int) -> None:
    begin_block(str(stage), ipu)


def _overlap(annotate: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, mode: annotate(x, OverlapMode(mode))


def _matmul_serialization(x: torch.Tensor, mode: str, factor: int, keep_precision: bool) -> torch.Tensor:
    assert mode in [member.value for member in MatMulSerializationMode], f"unknown matmul serialization mode {mode!r}"
    return x


def _print(x: torch.Tensor, title: str) -> torch.Tensor:
    return annotations.ipu_print_tensor(x, title)


_OPERATORS: Dict[str, Callable[..., Any]] = {
    "begin_ipu_block(int stage, int phase, int ipu) -> ()": _begin_ipu_block,
    "end_ipu_block() -> ()": lambda: Block().__exit__(),
    "push_name_scope(str name) -> ()": _push_name_scope,
    "pop_name_scope() -> ()": _pop_name_scope,
    "set_attribute(str attribute, str key, str value) -> ()": lambda attribute, key, value: None,
    "clear_attribute(str attribute, str key) -> ()": lambda attribute, key: None,
    "optimizer_group(int group, Tensor[] inputs) -> ()": lambda group, inputs: None,
    "recomputation_checkpoint(Tensor(a) x) -> Tensor(a)": annotations.recomputationCheckpoint,
    "set_available_memory(Tensor(a) x, float proportion) -> Tensor(a)": annotations.set_available_memory,
    "set_overlap_for_input(Tensor(a) x, str mode) -> Tensor(a)": _overlap(annotations.set_overlap_for_input),
    "set_overlap_for_output(Tensor(a) x, str mode) -> Tensor(a)": _overlap(annotations.set_overlap_for_output),
    "set_matmul_serialization(Tensor(a) x, str mode, int factor, bool keep_precision) -> Tensor(a)": _matmul_serialization,
    "nop(Tensor(a) x) -> Tensor(a)": annotations.nop,
    "identity_loss(Tensor x, int reduction) -> Tensor": lambda x, reduction: identity_loss(x, _REDUCTIONS[reduction]),
    "internal_cast(Tensor x, str dtype) -> Tensor": lambda x, dtype: annotations.internal_cast(x, _CASTS[dtype]),
    "ipu_print_tensor(Tensor x, str title) -> Tensor": _print,
}

for _schema, _function in _OPERATORS.items():
    _library.define(_schema)
    _library.impl(_schema.split("(")[0], _function, "CompositeImplicitAutograd")
