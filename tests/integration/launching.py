"""How tests start poprun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def command(*flags):
    return [sys.executable, "-m", "ipu_model.poprun", *flags]


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}


def poprun(*arguments, **variables):
    return subprocess.run(command(*arguments), cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=240)
