"""What a run says while it goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Mapping

from tqdm import tqdm


class Progress:
    """A progress bar over the updates of a run on a terminal, and a plain line now and then elsewhere."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._updates_per_epoch = epochs, 1
        self._first = self._done = 0
        self._start = 0.0
        self._bar = tqdm(disable=True)

    def start(self, done_updates: int, updates_per_epoch: int) -> None:
        """The run goes on from here."""
        self._first = self._done = done_updates
        self._updates_per_epoch = updates_per_epoch
        self._start = time.monotonic()
        self._bar = tqdm(total=self._total, initial=done_updates, unit="update", disable=not _has_width(), dynamic_ncols=True)

    def advance(self, updates: int) -> None:
        """So many updates are done."""
        self._done += updates
        self._bar.update(updates)

    def show(self, row: Mapping[str, Any]) -> None:
        """Show a row of training.csv."""
        text = (
            f"loss {row['loss']:.3f}  accuracy {row['accuracy']:.1f} %  {row['images_per_second']:.0f} images/s  "
            f"data wait {row['data_wait']:.0f} %  lr {row['learning_rate']:.4g}"
        )
        if not self._bar.disable:
            self._bar.set_description(f"epoch {self._epoch()}/{self._epochs}")
            self._bar.set_postfix_str(text)
            return
        self.say(f"epoch {self._epoch()}/{self._epochs}  update {self._done}/{self._total}  {text}  ETA {self._remaining()}")

    def say(self, line: str) -> None:
        """A line, above the bar where there is one."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    @property
    def _total(self) -> int:
        return self._epochs * self._updates_per_epoch

    def _epoch(self) -> int:
        return min(self._epochs, (max(self._done, 1) - 1) // self._updates_per_epoch + 1)

    def _remaining(self) -> str:
        done = max(self._done - self._first, 1)
        seconds = int((time.monotonic() - self._start) / done * (self._total - self._done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _has_width() -> bool:
    """Whether stderr is a terminal that a bar fits on; some that are attached to nothing have no columns or no lines."""
    return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
