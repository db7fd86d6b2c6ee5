"""The IPU Model: PopTorch's API on plain PyTorch, for machines without an IPU.

Importing this package appends its `sdk` folder to the end of the module search path. Where the Poplar SDK is installed its own
`poptorch` is found first and the IPU Model stays silent; elsewhere `import poptorch` finds the one in `sdk`.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SDK = str(Path(__file__).parent / "sdk")
if _SDK not in sys.path:
    sys.path.append(_SDK)
