"""Ctrl-C and SIGTERM: finish the call under way, write a checkpoint, and stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Dict, Optional


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
