"""What the IPU Model says on stderr: that it runs, and that it is compiling."""

from __future__ import annotations

import contextlib
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
    if not _said and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
        _said.append(line)
        sys.stderr.write(line + "\n")


def is_announced() -> bool:
    """Whether the program has wrapped a model."""
    return bool(_said)


@contextlib.contextmanager
def compilation_progress(is_shown: bool) -> Iterator[None]:
    """PopTorch's bar around a compilation, on a terminal."""
    bar = tqdm(total=100, desc="Graph compilation", disable=not (is_shown and sys.stderr.isatty()))
    try:
        yield
        bar.update(100)
    finally:
        bar.close()
