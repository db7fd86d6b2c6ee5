"""Makes `import poptorch` work in an environment, by a file of paths (`.pth`) among its packages."""

from __future__ import annotations

import os
import site
import sysconfig
from pathlib import Path
from typing import Callable, List

from ..launcher.python_path import SDK, poplar_sdk

FILE = "ipu_model.pth"


def _folders() -> List[Path]:
    """Where Python reads such files: the environment's packages, then the user's."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(name) for name in dict.fromkeys([sysconfig.get_path("purelib"), *user])]


def install(say: Callable[[str], None]) -> int:
    """Write the file, say where; the exit code."""
    for folder in _folders():
        if os.access(folder, os.W_OK) or not folder.exists() and os.access(folder.parent, os.W_OK):
            folder.mkdir(exist_ok=True)
            path = folder / FILE
            path.write_text(f"{SDK}\n", encoding="utf-8")
            say(f"wrote {path}: `import poptorch` now finds {SDK}, notebooks included (undo: python -m ipu_model uninstall)")
            other = poplar_sdk()
            if other:
                say(f"the Poplar SDK's own poptorch is in this environment and wins: {other}")
            return 0
    say(f"cannot write to {' or '.join(map(str, _folders()))}: use a virtual environment, or the rights of its owner")
    return 1


def uninstall(say: Callable[[str], None]) -> int:
    """Remove the file, say where; the exit code."""
    present = [folder / FILE for folder in _folders() if (folder / FILE).exists()]
    for path in present:
        try:
            path.unlink()
        except OSError as error:
            say(f"cannot remove {path}: {error.strerror}")
            return 1
        say(f"removed {path}")
    if not present:
        say(f"nothing to remove: there is no {FILE} in {' or '.join(map(str, _folders()))}")
    return 0
