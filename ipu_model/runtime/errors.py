"""The errors that a PopTorch program can tell apart."""

from __future__ import annotations


class Error(RuntimeError):
    """What PopTorch raises for a program it cannot compile or run.

    Attributes: `type` (the part of the tool chain that refused), `message`, `location` (empty where unknown).
    """

    def __init__(self, message: str, type: str = "poptorch_py_error", location: str = "") -> None:
        super().__init__(f"'{type}': {message}")
        self.type = type
        self.message = message
        self.location = location


class RecoverableError(Error):
    """A failure after which the device can be used again once `recovery_action` is done."""

    recovery_action = "FULL_RESET"


class UnrecoverableError(Error):
    """A failure after which the device cannot be used again."""


def absent(name: str, nearest: str) -> NotImplementedError:
    """The error for a part of PopTorch that the IPU Model lacks; `nearest` is what comes closest."""
    return NotImplementedError(f"{name} is not implemented by the IPU Model. Nearest alternative: {nearest}.")
