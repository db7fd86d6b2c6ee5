"""Found as `ipu_model` where only this folder is on the module search path: the package that the folder belongs to.

So that one entry, at the end of the path, is all that `import poptorch` needs, and nothing else of a clone can be imported by accident.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("ipu_model", _PACKAGE / "__init__.py", submodule_search_locations=[str(_PACKAGE)])
assert _spec is not None and _spec.loader is not None
_package = importlib.util.module_from_spec(_spec)
sys.modules["ipu_model"] = _package
_spec.loader.exec_module(_package)
