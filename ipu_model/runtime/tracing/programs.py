"""A model as a `Program`: its forward pass on fake tensors, without arithmetic, inside of the IPU Model's semantics."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

import torch
from torch.func import functional_call

from ipu_model.program.ops import Program, Variable
from ipu_model.program.placement import Stages
from ipu_model.runtime.tracing.recorder import OpRecorder, as_meta, describe, module_paths

from ..forward.recording import BlockStart, recording
from ..forward.semantics import IpuSemantics
from ..structures import flatten, map_leaves


def trace_program(
    model: torch.nn.Module,
    inputs: Tuple[Tuple[Any, ...], Dict[str, Any]],
    is_training: bool,
    place: Callable[[List[BlockStart]], Stages],
) -> Program:
    """Records of one micro batch.

    Args:
        inputs: (args, kwargs) of forward at micro-batch size.
        place: gives the stages and IPUs of the blocks that forward begins.
    """
    named = {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}
    is_trained = {name: is_training and value.requires_grad for name, value in model.named_parameters()}
    state = {name: as_meta(value) for name, value in named.items()}
    trained = {id(value): is_trained.get(name, False) for name, value in state.items()}
    args, kwargs = map_leaves(lambda value: as_meta(value) if isinstance(value, torch.Tensor) else value, inputs)
    leaves = [leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    with recording(is_training) as record, torch.no_grad(), module_paths(model) as path:
        recorder = OpRecorder(trained, lambda: max(len(record.block_starts) - 1, 0), path)
        registered = {id(value): state[name] for name, value in (*model.named_parameters(), *model.named_buffers())}
        with IpuSemantics(record, torch.device("meta"), leaves, registered), recorder:
            results = flatten(functional_call(model, state, args, kwargs))[0]
    starts = list(record.block_starts)
    return Program(
        ops=tuple(recorder.ops),
        variables=tuple(
            Variable(name, describe(value), recorder.first_use.get(id(value), 0), trained[id(value)]) for name, value in state.items()
        ),
        inputs=tuple(describe(leaf) for leaf in leaves),
        outputs=tuple(describe(leaf) for leaf in results if isinstance(leaf, torch.Tensor)),
        is_training=is_training,
        stages=place(starts) if starts else Stages(),
        sources=recorder.sources,
    )
