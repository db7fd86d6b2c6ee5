"""Checkpoints: everything a run needs to go on bit for bit, written whole or not at all."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import torch

from config import Config, config_of_checkpoint, differences, may_change

from ..errors import CheckpointError

FORMAT = "g16-efficientnet-checkpoint"
VERSION = 1
LAST = "last.pt"
BEST = "best.pt"


def save_checkpoint(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint to a temporary name, sync it to the disk, and rename it.

    Raises:
        CheckpointError: it could not be written (full disk, no permission); what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **payload}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        temporary.unlink(missing_ok=True)
        kept = f"; the previous {path.name} is kept" if path.exists() else ""
        free = (
            f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free there" if path.parent.is_dir() else "there is no such folder"
        )
        raise CheckpointError(f"cannot write checkpoint {path}: {error} ({free}){kept}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(path: Path, is_mapped: bool = False) -> Dict[str, Any]:
    """Read a checkpoint of this application, tensors on the CPU; CheckpointError where it is missing, damaged or foreign.

    `is_mapped` reads tensors from the disk when they are looked at, where torch can (2.1 or newer).
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a file, or a run folder with checkpoints/{LAST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about a foreign pickle before it refuses it
            mapped: Dict[str, Any] = {"mmap": True} if is_mapped and "mmap" in inspect.signature(torch.load).parameters else {}
            payload = torch.load(path, map_location="cpu", weights_only=True, **mapped)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a whole checkpoint: {first_line[:200]}. Use another one, or --resume auto") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this application: train.py writes them to RUN/checkpoints")
    if payload["version"] != VERSION:
        raise CheckpointError(f"{path} has version {payload['version']}, this program reads version {VERSION}")
    return payload


def find_checkpoint(place: Path) -> Path:
    """The checkpoint meant by a file or a run folder: the best one of a folder, or the last; CheckpointError where there is none."""
    if place.is_dir():
        for candidate in (place / "checkpoints" / BEST, place / BEST, place / "checkpoints" / LAST, place / LAST):
            if candidate.is_file():
                return candidate
    return place


class Checkpoint(NamedTuple):
    """A checkpoint that has been read."""

    path: Path
    payload: Dict[str, Any]


def newest_whole_checkpoint(folders: Sequence[Path]) -> Optional[Checkpoint]:
    """The newest readable checkpoint in the `checkpoints` of run folders, read; damaged ones are passed over."""
    candidates: List[Path] = [path for folder in folders for path in (folder / "checkpoints").glob("*.pt")]
    for path in sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, path.name == LAST), reverse=True):
        try:
            return Checkpoint(path, load_checkpoint(path))
        except CheckpointError:
            continue
    return None


def load_end(place: Path) -> Checkpoint:
    """A checkpoint file, or that of a run folder's end."""
    path = place / "checkpoints" / LAST if place.is_dir() else place
    return Checkpoint(path, load_checkpoint(path))


def check_same_config(stored: Mapping[str, Any], config: Config) -> None:
    """CheckpointError where a resumed run's config differs in a field that changes results and is not named in `allow_change`."""
    found = differences(config_of_checkpoint(stored, {}), config)
    refused = [difference for difference in found if not may_change(difference.field) and difference.field not in config.run.allow_change]
    if refused:
        names = " ".join(difference.field for difference in refused)
        raise CheckpointError(
            f"the resumed run has another config: {'; '.join(map(str, refused))}. Give the same values, or name the change: "
            f"--allow-change {names}"
        )
