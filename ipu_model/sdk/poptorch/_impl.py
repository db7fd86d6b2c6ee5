"""Internals of PopTorch that other projects reach into."""

from __future__ import annotations

from typing import Any

import torch

from ipu_model.runtime.forward.recording import current_recording

from ._executor.wrapping import is_wrapped, unwrap, wrap
from ._forward.annotations import internal_cast as internal_cast


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
