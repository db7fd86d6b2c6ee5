"""What the IPU Model says on stderr: that it runs, and that it is compiling."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Iterator, List

from tqdm import tqdm

from .._hardware import VARIABLE, pretended_version

_said: List[str] = []


def announce() -> None:
    """Say once in a run that no IPU is used."""
    pretended = f"hardware is only pretended ({VARIABLE}); " if pretended_version() is not None else ""
    line = f"IPU Model: no IPU is used; {pretended}PopTorch's API runs on plain PyTorch (real numerics, host speed)."
    if not _said and _is_first_instance():
        _said.append(line)
        sys.stderr.write(line + "\n")


def announce_found(folder: str, seconds: float, seconds_when_captured: float) -> None:
    """Say that a compiled model was found again, and what that saved."""
    if _is_first_instance():
        saved = max(seconds_when_captured - seconds, 0.0)
        sys.stderr.write(f"IPU Model: the compiled model was found again in {folder}: {seconds:.1f} s, {saved:.1f} s saved.\n")


def _is_first_instance() -> bool:
    return os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0"


def is_announced() -> bool:
    """Whether the program has wrapped a model."""
    return bool(_said)


@contextlib.contextmanager
def compilation_progress(is_shown: bool) -> Iterator[None]:
    """PopTorch's bar around a compilation, on a terminal; torch's own log is silent meanwhile."""
    bar = tqdm(total=100, desc="Graph compilation", disable=not (is_shown and sys.stderr.isatty()))
    torch_log = logging.getLogger("torch")
    level = torch_log.level
    torch_log.setLevel(logging.CRITICAL + 1)  # what it refuses is an error of the program, which is shown; TORCH_LOGS wins
    try:
        yield
        bar.update(100)
    finally:
        torch_log.setLevel(level)
        bar.close()
