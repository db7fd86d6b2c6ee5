"""The loss of forward, and whether forward is what runs."""

from __future__ import annotations

import torch

from ipu_model.runtime.forward.recording import current_recording


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
