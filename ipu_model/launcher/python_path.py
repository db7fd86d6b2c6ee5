"""What other Python processes need so that they find poptorch: one folder on their module search path, unless an SDK is there."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path
from typing import Optional

PACKAGE = Path(__file__).resolve().parent.parent
SDK = PACKAGE / "sdk"  # the folder with poptorch, popdist and popart


def poplar_sdk() -> Optional[str]:
    """Where the Poplar SDK's own poptorch is, None where there is none."""
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != SDK]
    spec = importlib.machinery.PathFinder.find_spec("poptorch", others)
    return spec.origin if spec is not None else None


def is_clone(entry: str) -> bool:
    """Whether an entry of the search path is the folder that this package was cloned into, with much else in it that has usual names."""
    return Path(entry or ".").resolve() == PACKAGE.parent and (PACKAGE.parent / "pyproject.toml").is_file()


def python_path(given: Optional[str] = None) -> str:
    """PYTHONPATH for other processes: the given or present one, and last the folder with poptorch where no SDK has its own."""
    text = os.environ.get("PYTHONPATH", "") if given is None else given
    kept = [entry for entry in text.split(os.pathsep) if entry and not is_clone(entry) and Path(entry).resolve() != SDK]
    return os.pathsep.join(kept if poplar_sdk() else [*kept, str(SDK)])
