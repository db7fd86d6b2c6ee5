"""Ctrl-C and SIGTERM: finish the call under way, write a checkpoint, and stop, all instances at the same point."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Dict, Optional

import torch

from .instances import gather, is_alone


class Interrupt:
    """Context in which the first signal only sets a flag; a second one ends the program at once.

    Attributes: `signal_number`, the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal_number: Optional[int] = None
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        self.signal_number = number
        signal.signal(number, self._previous[number])


class StopVote:
    """Whether the run is to stop: a signal that any instance got stops them all, once all know of it."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._agreed_signal = 0

    def __enter__(self) -> StopVote:
        self._interrupt.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._interrupt.__exit__(*exception)

    @property
    def ballot(self) -> float:
        """The signal that this instance got, or 0."""
        return float(self._interrupt.signal_number or 0)

    def count(self, ballots: torch.Tensor) -> None:
        """Take the ballots of all instances."""
        self._agreed_signal = int(ballots.max())

    def call(self) -> None:
        """Ask all instances for their ballots; every one must."""
        self.count(gather(torch.tensor([self.ballot])))

    def is_stopping(self) -> bool:
        """Whether to stop: at once where this instance is alone, otherwise when all have agreed on it."""
        if is_alone():
            self._agreed_signal = int(self.ballot)
        return bool(self._agreed_signal)

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal that was agreed on."""
        return 128 + self._agreed_signal if self._agreed_signal else 0
