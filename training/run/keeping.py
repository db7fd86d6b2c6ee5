"""One run: its folder with checkpoints and tables, and what it says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

from config import Config, RunConfig, plain_values

from ..instances import is_first, wait_for_all
from .checkpoint import LAST, save_checkpoint
from .curves import draw_curves
from .progress import Progress
from .tables import TRAINING_COLUMNS, VALIDATION_COLUMNS, Table, write_summary
from .wandb_log import WandbLog

Row = Dict[str, Any]


class Run:
    """Checkpoints, training.csv, validation.csv, summary.json, curves.png, the progress bar, and Weights & Biases.

    Every instance has one; only the first one's writes and speaks.

    Attributes:
        epochs: how long the run is.
        cadence: how often it validates, logs and writes checkpoints.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.preset, self.epochs = config.preset, config.schedule.epochs
        self.cadence: RunConfig = config.run
        self._config = plain_values(config)
        self._folder = folder
        self._speaks = is_first()
        self._training = Table(folder / "training.csv" if self._speaks else None, TRAINING_COLUMNS)
        self._validation = Table(folder / "validation.csv" if self._speaks else None, VALIDATION_COLUMNS)
        self._progress = Progress(self.epochs) if self._speaks else None
        self._wandb = WandbLog(config.run, folder)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that the run goes on from."""
        return self._folder / "checkpoints" / LAST

    def restore(self, payload: Mapping[str, Any]) -> None:
        """Take the rows of a checkpoint."""
        self._training.rows = [dict(row) for row in payload["training_rows"]]
        self._validation.rows = [dict(row) for row in payload["validation_rows"]]

    @contextlib.contextmanager
    def under_way(self, done_updates: int, updates_per_epoch: int) -> Iterator[None]:
        """Write the tables as they are by now, and show the bar; close everything at the end, however it comes."""
        self._training.start(self._training.rows)
        self._validation.start(self._validation.rows)
        if self._progress is not None:
            self._progress.start(done_updates, updates_per_epoch)
            self._wandb.start(self._config)
        try:
            yield
        finally:
            if self._progress is not None:
                self._progress.close()
                self._wandb.finish()

    def save(self, payload: Callable[[], Mapping[str, Any]], *names: str) -> None:
        """Write what the trainer keeps, with the config and the rows, to checkpoints of these names; all instances wait for it."""
        if self._speaks:
            rows: Dict[str, Sequence[Row]] = {"training_rows": self._training.rows, "validation_rows": self._validation.rows}
            whole = {"config": self._config, **payload(), **rows}
            for name in names:
                save_checkpoint(self._folder / "checkpoints" / name, whole)
        wait_for_all()  # whoever ends now ends with a checkpoint

    def advance(self, updates: int) -> None:
        """So many updates are done."""
        if self._progress is not None:
            self._progress.advance(updates)

    def add_training(self, row: Row) -> None:
        """A row of training.csv."""
        self._training.add(row)
        if self._progress is not None:
            self._progress.show(row)
            self._wandb.log({f"training/{name}": value for name, value in row.items()}, row["update"])

    def add_validation(self, row: Row) -> None:
        """A row of validation.csv; further entries are said only."""
        self._validation.add({column: row[column] for column in VALIDATION_COLUMNS})
        if self._progress is None:
            return
        self._wandb.log({f"validation/{row['weights']}/{name}": row[name] for name in ("top1", "top5", "loss")}, row["update"])
        self._progress.say(
            f"epoch {row['epoch']}/{self.epochs}  validation ({row['weights']} weights)  top-1 {row['top1']:.2f} %  "
            f"top-5 {row['top5']:.2f} %  loss {row['loss']:.4f}  {int(row['images'])} images"
        )

    def last_validation(self) -> Row:
        """The last row of validation.csv, empty where there is none."""
        return self._validation.rows[-1] if self._validation.rows else {}

    def finish_epoch(self, summary: Mapping[str, Any]) -> None:
        """Draw the curves and write the summary."""
        if self._speaks:
            draw_curves(self._folder / "curves.png", self._training.rows, self._validation.rows, self._folder.name)
            write_summary(self._folder / "summary.json", summary)
