"""Internals of PopTorch that other projects reach into."""

from __future__ import annotations

from typing import Any

import torch

from ipu_model.runtime.forward.recording import current_recording

from ._executor.wrapping import is_wrapped, unwrap, wrap


def isDispatchTracing() -> bool:
    """Whether a model is being captured."""
    return current_recording() is not None


def unwrapModelIfNecessary(model: torch.nn.Module) -> Any:
    """Give a wrapped module its own class back; returns the executor that owned it, None where it was not wrapped."""
    if not is_wrapped(model):
        return None
    executor = model._executor()  # type: ignore[operator]
    unwrap(model)
    return executor


def rewrapModelIfNecessary(model: torch.nn.Module, executor: Any) -> None:
    """Undo `unwrapModelIfNecessary`."""
    if executor is not None and not is_wrapped(model):
        wrap(model, executor)


def internal_cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast to half or float; ValueError for other types."""
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"internal_cast takes torch.half or torch.float, got {dtype!r}")
    return tensor.to(dtype)
