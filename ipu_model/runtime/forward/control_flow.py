"""Loops, branches and host functions while capturing: a body runs once between two marker operations, see `graph/regions.py`."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch

from ..errors import Error
from ..operators import define_operator
from .recording import on_host

OPERATORS = torch.ops.ipu_model
_numbers = itertools.count()
_host_functions: Dict[int, Tuple[Callable[..., Any], List[torch.Tensor]]] = {}


def _clone_all(tensors: Sequence[torch.Tensor], *numbers: int) -> List[torch.Tensor]:
    return [tensor.clone() for tensor in tensors]


def _first_branch(condition: torch.Tensor, if_true: Sequence[torch.Tensor], if_false: Sequence[torch.Tensor]) -> List[torch.Tensor]:
    return [tensor.clone() for tensor in if_true]  # shapes while capturing; never runs


def _call_host(inputs: Sequence[torch.Tensor], function: int) -> List[torch.Tensor]:
    call, examples = _host_functions[function]
    if inputs and inputs[0].is_meta:
        return [torch.empty_like(example, device="meta") for example in examples]
    device = inputs[0].device if inputs else torch.device("cpu")
    with on_host():
        results = as_list(call(*[value.cpu() for value in inputs]))
    for result, example in zip(results, examples):
        if result.shape != example.shape or result.dtype != example.dtype:
            raise Error(
                f"poptorch.CPU: expected a result of {example.dtype} and shape {tuple(example.shape)} as at compilation, "
                f"got {result.dtype} and {tuple(result.shape)}."
            )
    return [result.detach().to(device) for result in results]


define_operator("begin_region(Tensor[] inputs, int region) -> Tensor[]", _clone_all)
define_operator("end_region(Tensor[] outputs, int region, int count) -> Tensor[]", _clone_all)
define_operator("choose(Tensor condition, Tensor[] if_true, Tensor[] if_false) -> Tensor[]", _first_branch)
define_operator("call_host(Tensor[] inputs, int function) -> Tensor[]", _call_host)


def as_list(value: Any) -> List[Any]:
    """A list of what a function returned."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def capture_region(body: Callable[..., Any], inputs: Sequence[torch.Tensor], count: int = 1) -> List[torch.Tensor]:
    """Run a body once on copies of its inputs while capturing; its operations will run `count` times, outputs fed to the next run."""
    region = next(_numbers)
    outputs = as_list(body(*OPERATORS.begin_region(list(inputs), region)))
    return OPERATORS.end_region(outputs, region, count)


def capture_host_call(function: Callable[..., Any], inputs: Sequence[torch.Tensor], examples: List[torch.Tensor]) -> List[torch.Tensor]:
    """Call a function on the host, in the middle of the graph; `examples` are results of the shapes that it gives."""
    number = next(_numbers)
    _host_functions[number] = (function, examples)
    return OPERATORS.call_host(list(inputs), number)
