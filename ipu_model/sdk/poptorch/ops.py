"""Functions called inside `forward`."""

from __future__ import annotations

from typing import Any

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.recording import current_recording


def identity_loss(x: torch.Tensor, reduction: str) -> torch.Tensor:
    """Mark a value as the loss, and reduce it: "sum", "mean" or "none"."""
    assert reduction in ("sum", "mean", "none"), f"identity_loss: reduction must be 'sum', 'mean' or 'none', got {reduction!r}"
    loss = x.sum() if reduction == "sum" else x.mean() if reduction == "mean" else x * 1
    record = current_recording()
    if record is not None:
        record.losses.append(loss)
    return loss


def recomputationCheckpoint(*tensors: Any) -> Any:
    """Keep these tensors for the backward pass where the rest is recomputed: values are unchanged, the points are counted.

    One tensor gives a tensor, several a tuple, one list or tuple the same type.
    """
    values = tensors[0] if len(tensors) == 1 else tensors
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"recomputationCheckpoint takes tensors, got {value!r}")
    record = current_recording()
    if record is not None:
        record.num_recomputation_checkpoints += 1
    return values


def nop(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    if not isinstance(tensor, torch.Tensor):
        raise Error(f"poptorch.nop takes a tensor, got {tensor!r}.")
    return tensor


def set_available_memory(tensor: torch.Tensor, available_memory_proportion: float) -> torch.Tensor:
    """The tensor itself; the share of memory for the operation that made it is a hint without effect on values."""
    if not isinstance(tensor, torch.Tensor):
        raise Error(f"poptorch.set_available_memory takes a tensor, got {tensor!r}.")
    return tensor


def isRunningOnIpu() -> bool:
    """Whether this runs inside a captured forward."""
    return current_recording() is not None
