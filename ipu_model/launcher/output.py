"""What poprun prints: the lines of the instances under their numbers, and its own."""

from __future__ import annotations

import collections
import sys
from typing import Deque, Dict, List, Optional, Tuple

_LAST_LINES = 40  # of a failed instance's standard error, shown again at the end


class Output:
    """Joins pieces of output to lines and prints them as `[instance] line`."""

    def __init__(self, only: Optional[int]) -> None:
        self._only = only
        self._begun: Dict[Tuple[int, str], str] = {}
        self._errors: Dict[int, Deque[str]] = collections.defaultdict(lambda: collections.deque(maxlen=_LAST_LINES))

    def add(self, instance: int, stream: str, text: str) -> None:
        """Take a piece of an instance's `stdout` or `stderr`."""
        *lines, rest = (self._begun.get((instance, stream), "") + text).split("\n")
        self._begun[instance, stream] = rest
        for line in lines:
            self._show(instance, stream, line)

    def finish(self, instance: int) -> None:
        """An instance has ended: show what has no line end."""
        for stream in ("stdout", "stderr"):
            rest = self._begun.pop((instance, stream), "")
            if rest:
                self._show(instance, stream, rest)

    def _show(self, instance: int, stream: str, line: str) -> None:
        if stream == "stderr":
            self._errors[instance].append(line)
        if self._only in (None, instance):
            target = sys.stdout if stream == "stdout" else sys.stderr
            target.write(f"[{instance}] {line}\n")
            target.flush()

    def last_errors(self, instance: int) -> List[str]:
        """The last lines of an instance's standard error."""
        return list(self._errors[instance])

    def forget_errors(self) -> None:
        """All instances start again."""
        self._errors.clear()


def say(line: str) -> None:
    """A line of poprun itself, on standard error."""
    sys.stderr.write(f"poprun: {line}\n")
    sys.stderr.flush()
