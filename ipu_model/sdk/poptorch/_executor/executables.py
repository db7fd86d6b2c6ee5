"""Compiled models as files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, List, Optional

from ipu_model.runtime.files import read_file, write_file

from ..options import Options
from .compiled import Compiled

logger = logging.getLogger("poptorch::python")
_FORMAT = "IPU Model executable, version 2"


@dataclass(frozen=True)
class Executable:
    """What a file holds.

    Attributes:
        random_state: of the device, where it was asked for.
        model, optimizer, optimizer_state: the user's own, where the model was exported with it.
    """

    compiled: Compiled
    options: Options
    random_state: Optional[List[int]] = None
    model: Any = None
    optimizer: Any = None
    optimizer_state: Any = None

    def restore_optimizer(self) -> None:
        """Give the optimizer the state that it was saved with, the device's included."""
        if self.optimizer_state is not None and "ipu_state" in self.optimizer_state:
            self.optimizer.load_state_dict(self.optimizer_state)


def write_executable(filename: str, executable: Executable) -> None:
    """Write a file; a folder gets a `model.poptorch`."""
    path = Path(filename)
    if path.is_dir():
        path = path / "model.poptorch"
        logger.warning("%s is a folder: saving to %s", filename, path)
    write_file(path, _FORMAT, {item.name: getattr(executable, item.name) for item in fields(Executable)})


def read_executable(filename: str) -> Executable:
    """Read a file; `Error` for one that is none, or of another version."""
    content = read_file(Path(filename), _FORMAT)
    return Executable(**{item.name: content[item.name] for item in fields(Executable)})


def read_exported(filename: str) -> Executable:
    """Read a file that holds the user's model too; AssertionError where it was saved without."""
    stored = read_executable(filename)
    assert stored.model is not None, f"{filename} was saved with export_model=False: wrap the model and call loadExecutable({filename!r})"
    return stored
