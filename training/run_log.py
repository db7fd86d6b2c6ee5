"""What a run says and writes while it goes on, by its first instance; the others keep silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from config import Config

from .checkpoint import plain_config
from .curves import draw_curves
from .records import TRAINING_COLUMNS, VALIDATION_COLUMNS, Table, write_summary
from .report import Progress, WandbLog

Row = Dict[str, Any]


class RunLog:
    """training.csv, validation.csv, summary.json, curves.png, the progress bar, and Weights & Biases."""

    def __init__(self, config: Config, folder: Path, is_first: bool) -> None:
        self._config, self._folder, self._is_first = config, folder, is_first
        self._training = Table(folder / "training.csv" if is_first else None, TRAINING_COLUMNS)
        self._validation = Table(folder / "validation.csv" if is_first else None, VALIDATION_COLUMNS)
        self._progress: Optional[Progress] = None
        self._wandb: Optional[WandbLog] = None

    @property
    def rows(self) -> Dict[str, Sequence[Row]]:
        """For a checkpoint."""
        return {"training_rows": self._training.rows, "validation_rows": self._validation.rows}

    def restore(self, payload: Mapping[str, Any]) -> None:
        """Take the rows of a checkpoint."""
        self._training.rows = [dict(row) for row in payload["training_rows"]]
        self._validation.rows = [dict(row) for row in payload["validation_rows"]]

    def begin(self, done_updates: int, updates_per_epoch: int) -> None:
        """Write the tables as they are by now, and show the bar."""
        self._training.start(self._training.rows)
        self._validation.start(self._validation.rows)
        if self._is_first:
            epochs = self._config.schedule.epochs
            self._progress = Progress(epochs * updates_per_epoch, done_updates, updates_per_epoch, epochs)
            self._wandb = WandbLog(self._config.run, self._folder, plain_config(self._config))

    def advance(self, updates: int) -> None:
        """So many updates are done."""
        if self._progress is not None:
            self._progress.advance(updates)

    def add_training(self, row: Row) -> None:
        """A row of training.csv."""
        self._training.add(row)
        if self._progress is not None and self._wandb is not None:
            self._progress.show(row)
            self._wandb.log({f"training/{name}": value for name, value in row.items()}, row["update"])

    def add_validation(self, row: Row) -> None:
        """A row of validation.csv; further entries are said only."""
        self._validation.add({column: row[column] for column in VALIDATION_COLUMNS})
        if self._progress is None or self._wandb is None:
            return
        self._wandb.log({f"validation/{row['weights']}/{name}": row[name] for name in ("top1", "top5", "loss")}, row["update"])
        self._progress.say(
            f"epoch {row['epoch']}/{self._config.schedule.epochs}  validation ({row['weights']} weights)  top-1 {row['top1']:.2f} %  "
            f"top-5 {row['top5']:.2f} %  loss {row['loss']:.4f}  {int(row['images'])} images"
        )

    def last_validation(self) -> Row:
        """The last row of validation.csv, empty where there is none."""
        return self._validation.rows[-1] if self._validation.rows else {}

    def finish_epoch(self, summary: Mapping[str, Any]) -> None:
        """Draw the curves and write the summary."""
        if self._is_first:
            draw_curves(self._folder / "curves.png", self._training.rows, self._validation.rows, self._folder.name)
            write_summary(self._folder / "summary.json", summary)

    def end(self) -> None:
        """The run stops here."""
        if self._progress is not None and self._wandb is not None:
            self._progress.close()
            self._wandb.finish()
