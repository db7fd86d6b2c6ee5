"""Functions called inside `forward`."""

from __future__ import annotations

import torch

from ipu_model.runtime.forward.recording import current_recording

from ._forward.algorithms import (
    ctc_beam_search_decoder as ctc_beam_search_decoder,
    dynamic_slice as dynamic_slice,
    dynamic_update as dynamic_update,
    fps as fps,
    nearest as nearest,
)
from ._forward.annotations import (
    Attribute as Attribute,
    MultiConv as MultiConv,
    NameScope as NameScope,
    ipu_print_tensor as ipu_print_tensor,
    nop as nop,
    recomputationCheckpoint as recomputationCheckpoint,
    serializedMatMul as serializedMatMul,
    set_available_memory as set_available_memory,
    set_overlap_for_input as set_overlap_for_input,
    set_overlap_for_output as set_overlap_for_output,
)
from ._forward.control_flow import CPU as CPU, cond as cond, custom_op as custom_op, for_loop as for_loop
from ._placement.blocks import (
    BeginBlock as BeginBlock,
    Block as Block,
    BlockFunction as BlockFunction,
    removeBlocks as removeBlocks,
)


def identity_loss(x: torch.Tensor, reduction: str) -> torch.Tensor:
    """Mark a value as the loss, and reduce it: "sum", "mean" or "none"."""
    assert reduction in ("sum", "mean", "none"), f"identity_loss: reduction must be 'sum', 'mean' or 'none', got {reduction!r}"
    loss = x.sum() if reduction == "sum" else x.mean() if reduction == "mean" else x * 1
    record = current_recording()
    if record is not None:
        record.losses.mark(loss)
    return loss


def isRunningOnIpu() -> bool:
    """Whether this runs inside a captured forward."""
    return current_recording() is not None
