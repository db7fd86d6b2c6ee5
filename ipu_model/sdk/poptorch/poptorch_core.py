"""Names that programs take from PopTorch's compiled module."""

from __future__ import annotations

from ipu_model.runtime.errors import (
    Error as Error,
    RecoverableError as RecoverableError,
    UnrecoverableError as UnrecoverableError,
)
from ipu_model.runtime.forward.recording import current_recording


def ipuHardwareVersion(num_ipus: int = 1) -> int:
    """Version of the hardware: 0, since there is none."""
    return 0


def isCompilingWithDispatcher() -> bool:
    """Whether a model is being captured."""
    return current_recording() is not None
