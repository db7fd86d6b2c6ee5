"""The files of a run: config.yml, training.csv, validation.csv, summary.json."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import yaml

from .errors import TrainingError

TRAINING_COLUMNS = ("update", "epoch", "loss", "accuracy", "learning_rate", "loss_scale", "images_per_second", "data_wait")
VALIDATION_COLUMNS = ("update", "epoch", "weights", "top1", "top5", "loss", "images_per_second")


class Table:
    """A CSV file with fixed columns, whose rows are on the disk once added."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._columns = columns
        self.rows: List[Dict[str, Any]] = []

    def start(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin the file anew with these rows (those before the checkpoint, when a run is resumed)."""
        self.rows = [dict(row) for row in rows]
        with _writing(self.path, "w") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(dict(row))
        with _writing(self.path, "a") as file:
            csv.DictWriter(file, self._columns).writerow(row)


class _writing:
    """Open a file for writing; a failure is a TrainingError that names it."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._mode = path, mode

    def __enter__(self) -> Any:
        try:
            self._file = open(self._path, self._mode, newline="", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error.strerror}") from error
        return self._file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._file.close()
        except OSError as failure:
            raise TrainingError(f"cannot write {self._path}: {failure.strerror}; checkpoints written so far are kept") from failure


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """The resolved config as YAML."""
    with _writing(path, "w") as file:
        yaml.safe_dump(dict(config), file, sort_keys=False)


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """The result of a run as JSON, replaced as a whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with _writing(temporary, "w") as file:
        json.dump(dict(summary), file, indent=2)
        file.write("\n")
    os.replace(temporary, path)
