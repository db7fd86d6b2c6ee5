"""The start of a run: its folder, and what it resumes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from config import Config, ConfigError, plain_values

from ..errors import CheckpointError
from ..instances import is_first, share
from .checkpoint import Checkpoint, check_same_config, load_checkpoint, newest_whole_checkpoint
from .tables import make_folder, write_config, writing

RUNS = Path("runs")
LAUNCH_FILE = "launch-id"  # which launch of torch.distributed's launcher (poprun's engine) a run belongs to
logger = logging.getLogger(__name__)


def open_run(config: Config) -> Tuple[Path, Optional[Dict[str, Any]]]:
    """The folder of the run, made where it is new, and the checkpoint that it resumes, if any; the first instance's on all.

    Raises:
        CheckpointError: nothing to resume, a damaged checkpoint, or another config.
        ConfigError: the folder holds a run already and is not to be resumed.
    """
    opened = _open_run(config) if is_first() else None
    folder, payload = share((str(opened[0]), opened[1]) if opened else None)
    return Path(folder), payload


def _open_run(config: Config) -> Tuple[Path, Optional[Dict[str, Any]]]:
    checkpoint = _restarted(config) or _resumed(config)
    if checkpoint is not None:
        check_same_config(checkpoint.payload["config"], config)
        logger.info("resuming %s at update %d", checkpoint.path, checkpoint.payload["position"]["update"])
    folder = Path(config.run.output) if config.run.output else checkpoint.path.parent.parent if checkpoint else _new_folder(config.preset)
    is_used = (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir())
    if checkpoint is None and is_used:
        raise ConfigError(f"{folder} holds a run already: go on with --resume auto, or choose another --output")
    make_folder(folder / "checkpoints")
    write_config(folder / "config.yml", plain_values(config))
    _note_launch(folder)
    return folder, checkpoint.payload if checkpoint else None


def _folders(config: Config) -> List[Path]:
    return [Path(config.run.output)] if config.run.output else sorted(RUNS.glob(f"{config.preset}-*"))


def _resumed(config: Config) -> Optional[Checkpoint]:
    run = config.run
    if not run.resume:
        return None
    if run.resume != "auto":
        return Checkpoint(Path(run.resume), load_checkpoint(Path(run.resume)))
    folders = _folders(config)
    newest = newest_whole_checkpoint(folders)
    damaged = [file for folder in folders for file in (folder / "checkpoints").glob("*.pt")]
    if newest is None and damaged:
        raise CheckpointError(f"--resume auto: none of the checkpoints is whole: {', '.join(map(str, damaged))}")
    if newest is None:
        logger.info("--resume auto: no checkpoint yet, a new run begins")
    return newest


def _restarted(config: Config) -> Optional[Checkpoint]:
    """The newest checkpoint of the same launch, where the launcher has started the program again after a failure."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0:
        return None
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    notes = [folder / LAUNCH_FILE for folder in _folders(config)]
    return newest_whole_checkpoint([note.parent for note in notes if note.is_file() and note.read_text() == launch])


def _note_launch(folder: Path) -> None:
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch:
        with writing(folder / LAUNCH_FILE, "w") as file:
            file.write(launch)


def _new_folder(preset: str) -> Path:
    base = RUNS / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    return next(p for p in (base, *(Path(f"{base}-{n}") for n in range(2, 1000))) if not p.exists())
