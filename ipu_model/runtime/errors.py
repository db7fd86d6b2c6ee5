"""The errors that a PopTorch program can tell apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Tuple

PYTHON_ERROR = "poptorch_py_error"  # the type of errors of PopTorch's Python side
_MODULE = "poptorch.poptorch_core"  # where PopTorch has them: what tracebacks show, and people search for


class Error(RuntimeError):
    """What PopTorch raises for a program it cannot compile or run.

    Attributes: `type` (the part of the tool chain that refused), `message`, `location` (file and line of an error of the backend, else
    empty).
    """

    __module__ = _MODULE

    def __init__(self, message: str, type: str = PYTHON_ERROR, location: str = "") -> None:
        if type != PYTHON_ERROR and not location:
            raised = sys._getframe(1)
            location = f"{Path(raised.f_code.co_filename).name}:{raised.f_lineno}"
        super().__init__(f"In {location}: '{type}': {message}" if location else f"'{type}': {message}")
        self.type = type
        self.message = message
        self.location = location

    def __reduce__(self) -> Tuple[Any, ...]:
        return self.__class__, (self.message, self.type, self.location)


class RecoverableError(Error):
    """A failure after which the device can be used again once `recovery_action` is done."""

    __module__ = _MODULE
    recovery_action = "FULL_RESET"


class UnrecoverableError(Error):
    """A failure after which the device cannot be used again."""

    __module__ = _MODULE


def absent(name: str, nearest: str) -> NotImplementedError:
    """The error for a part of PopTorch that the IPU Model lacks; `nearest` is what comes closest."""
    return NotImplementedError(f"{name} is not implemented by the IPU Model. Nearest alternative: {nearest}.")
