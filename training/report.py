"""What a run says while it goes on: a bar on a terminal, plain lines elsewhere, and Weights & Biases where asked for."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from tqdm import tqdm

from config import RunConfig

logger = logging.getLogger(__name__)


class Progress:
    """A progress bar over the updates of a run on a terminal, and a plain line now and then elsewhere."""

    def __init__(self, total_updates: int, done_updates: int, updates_per_epoch: int, epochs: int) -> None:
        self._total, self._done, self._first = total_updates, done_updates, done_updates
        self._updates_per_epoch, self._epochs = updates_per_epoch, epochs
        self._start = time.monotonic()
        self._bar = tqdm(total=total_updates, initial=done_updates, unit="update", disable=not _has_width(), dynamic_ncols=True)

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

    def _epoch(self) -> int:
        return min(self._epochs, (max(self._done, 1) - 1) // self._updates_per_epoch + 1)

    def _remaining(self) -> str:
        done = max(self._done - self._first, 1)
        seconds = int((time.monotonic() - self._start) / done * (self._total - self._done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _has_width() -> bool:
    """Whether stderr is a terminal that a bar fits on; some that are attached to nothing have no columns or no lines."""
    return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0


class WandbLog:
    """Weights & Biases; a failure is said once and never stops a run. Its id is kept in the run's folder for resuming."""

    def __init__(self, run: RunConfig, folder: Path, config: Mapping[str, Any]) -> None:
        self._run: Optional[Any] = None
        if run.wandb:
            self._try("start", lambda: self._start(run, folder, config))

    def _start(self, run: RunConfig, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        id_file = folder / "wandb-id"
        run_id = id_file.read_text().strip() if id_file.is_file() else uuid.uuid4().hex[:8]
        id_file.write_text(run_id)
        settings: Dict[str, Any] = dict(project=run.wandb_project, name=folder.name, id=run_id, resume="allow", dir=str(folder))
        self._run = wandb.init(config=dict(config), **settings)

    def log(self, values: Mapping[str, Any], update: int) -> None:
        """Log values at an update."""
        if self._run is not None:
            present = self._run
            self._try("log", lambda: present.log(dict(values), step=update))

    def finish(self) -> None:
        """End the run there."""
        if self._run is not None:
            self._try("finish", self._run.finish)

    def _try(self, what: str, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever a logger does wrong must not stop training
            logger.warning("Weights & Biases could not %s (%s: %s); the run goes on without it", what, type(error).__name__, error)
            self._run = None
