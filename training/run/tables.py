"""The files of a run: config.yml, training.csv, validation.csv, summary.json."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import yaml

from ..errors import TrainingError

TRAINING_COLUMNS = ("update", "epoch", "loss", "accuracy", "learning_rate", "loss_scale", "images_per_second", "data_wait")
VALIDATION_COLUMNS = ("update", "epoch", "weights", "top1", "top5", "loss", "images_per_second")


class Table:
    """A CSV file with fixed columns, whose rows are on the disk once added; without a path, only the rows."""

    def __init__(self, path: Optional[Path], columns: Sequence[str]) -> None:
        self.path = path
        self._columns = columns
        self.rows: List[Dict[str, Any]] = []

    def start(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin the file anew with these rows (those before the checkpoint, when a run is resumed)."""
        self.rows = [dict(row) for row in rows]
        if self.path is None:
            return
        with writing(self.path, "w") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(dict(row))
        if self.path is None:
            return
        with writing(self.path, "a") as file:
            csv.DictWriter(file, self._columns).writerow(row)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none; TrainingError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the folder {folder}: {error.strerror}") from error


@contextlib.contextmanager
def writing(path: Path, mode: str) -> Iterator[Any]:
    """Open a file for writing; TrainingError that names it where it cannot be written (full disk, no permission)."""
    try:
        with open(path, mode, newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; checkpoints written so far are kept") from error


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """The resolved config as YAML."""
    with writing(path, "w") as file:
        yaml.safe_dump(dict(config), file, sort_keys=False)


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """The result of a run as JSON, replaced as a whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with writing(temporary, "w") as file:
        json.dump(dict(summary), file, indent=2)
        file.write("\n")
    os.replace(temporary, path)
