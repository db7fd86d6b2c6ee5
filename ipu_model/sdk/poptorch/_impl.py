"""Internals of PopTorch that other projects reach into."""

from __future__ import annotations

from typing import Any

import torch

from ipu_model.runtime.forward.recording import current_recording

from ._executor.wrapping import is_wrapped, set_aside, take_up, unwrap_object
from ._forward.annotations import internal_cast as internal_cast


def isDispatchTracing() -> bool:
    """Whether a model is being captured."""
    return current_recording() is not None


def isWrapped(obj: Any) -> bool:
    """Whether a training model owns a module, a parameter or a buffer."""
    return is_wrapped(obj)


def unwrapIfWrapped(obj: Any) -> Any:
    """Give a wrapped module, parameter or buffer its own class back, in place and without what it contains; returns it."""
    return unwrap_object(obj)


def unwrapModelIfNecessary(model: torch.nn.Module) -> None:
    """Give a wrapped module, its parameters and its buffers their own classes back, until `rewrapModelIfNecessary`."""
    set_aside(model)


def rewrapModelIfNecessary(model: torch.nn.Module) -> None:
    """Undo `unwrapModelIfNecessary`."""
    take_up(model)
