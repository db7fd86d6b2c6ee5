"""How the process of an accessor starts, what it is handed, and why it may not start."""

from __future__ import annotations

import ast
import os
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Tuple

import torch

from ..enums import SharingStrategy

CONTEXTS = {
    SharingStrategy.SharedMemory: "spawn",
    SharingStrategy.FileSystem: "spawn",
    SharingStrategy.Fork: "fork",
    SharingStrategy.ForkServer: "forkserver",
}
_FORK = 'async_options={"sharing_strategy": poptorch.SharingStrategy.Fork}'


def _rebuild_generator(device: str, state: bytes) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator


def _reduce_generator(generator: torch.Generator) -> Tuple[Any, Tuple[str, bytes]]:
    """As bytes: torch 2.0 cannot pickle generators, and a tensor of the state would be gone before the other process has opened it."""
    return _rebuild_generator, (str(generator.device), generator.get_state().cpu().numpy().tobytes())


ForkingPickler.register(torch.Generator, _reduce_generator)


def end_if_bootstrapping(error: Exception) -> None:
    """End this process, which another one has started, where it cannot start a further one since it still imports the program.

    It would only say so a second time: the process that waits for it names the cause.
    """
    if isinstance(error, RuntimeError) and "bootstrapping" in str(error):
        os._exit(1)


def starting_advice(strategy: SharingStrategy) -> str:
    """What to do about a process that ended before it had begun: it imports the program, which must not run again."""
    if strategy == SharingStrategy.Fork:
        return ""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None:
        return f" The process imports the program's classes: define the dataset in a file that is imported, or pass {_FORK}."
    if _has_guard(Path(file)):
        return ""
    return (
        f' {Path(file).name} has no `if __name__ == "__main__":`, so that the process would run the whole program again: '
        f"put what runs under that line, or pass {_FORK}."
    )


def _has_guard(path: Path) -> bool:
    """Whether a program asks for its own `__name__`; yes for what cannot be read."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    conditions = [node.test for node in tree.body if isinstance(node, ast.If)]
    return any(isinstance(name, ast.Name) and name.id == "__name__" for test in conditions for name in ast.walk(test))
