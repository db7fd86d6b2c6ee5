"""`python -m ipu_model [--profile DIR] PROGRAM [ARGUMENTS...]`: run a PopTorch program where there is no Poplar SDK."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

_USAGE = """usage: python -m ipu_model [--profile DIR] PROGRAM [ARGUMENTS...]

Runs a PopTorch program on the IPU Model. --profile writes, for each model that the program compiles, what it would cost on IPUs."""


def _ask_for_reports(folder: str) -> None:
    """As PopVision's users do: by Poplar's engine options."""
    options = json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS") or "{}")
    options.update({"autoReport.all": "true", "autoReport.directory": str(Path(folder).resolve())})
    os.environ["POPLAR_ENGINE_OPTIONS"] = json.dumps(options)


def main() -> None:
    """Run the program named on the command line as `__main__`, with its own folder first on the module search path."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(_USAGE)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if sys.argv[1] == "--profile":
        if len(sys.argv) < 4:
            sys.exit("ipu_model: --profile takes a folder, and then a program")
        _ask_for_reports(sys.argv[2])
        del sys.argv[1:3]
    program = Path(sys.argv[1])
    if not program.is_file():
        sys.exit(f"ipu_model: no such program: {program}")
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(program.resolve().parent))
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
