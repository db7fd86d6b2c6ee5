"""`python -m ipu_model PROGRAM [ARGUMENTS...]`: run a PopTorch program where there is no Poplar SDK. `--help` tells the rest."""

from __future__ import annotations

import sys

from ipu_model.runner.command_line import main

if __name__ == "__main__":
    sys.exit(main())
