"""`python -m ipu_model PROGRAM [ARGUMENTS...]`: run a PopTorch program where there is no Poplar SDK."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the program named on the command line as `__main__`, with its own folder first on the module search path."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m ipu_model PROGRAM [ARGUMENTS...]\n\nRuns a PopTorch program on the IPU Model.")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    program = Path(sys.argv[1])
    if not program.is_file():
        sys.exit(f"ipu_model: no such program: {program}")
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(program.resolve().parent))
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
