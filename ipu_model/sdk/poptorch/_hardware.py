"""What programs are told of the hardware: there is none, unless they are to believe that there is.

`IPU_MODEL_PRETEND_HARDWARE` is the switch: 1 or gc200 for IPUs of version 2, 21 or bow for Bow IPUs; `python -m ipu_model
--pretend-hardware` sets it.
"""

from __future__ import annotations

import os
from typing import List, Optional

VARIABLE = "IPU_MODEL_PRETEND_HARDWARE"
MAX_IPUS = 64  # in one process
_VERSIONS = {"": None, "0": None, "1": 2, "2": 2, "gc200": 2, "21": 21, "bow": 21}
_refused: List[str] = []  # questions that were answered with no


def pretended_version() -> Optional[int]:
    """Version of the pretended hardware, None where none is pretended.

    Raises:
        ValueError: the switch has an unknown value.
    """
    value = os.environ.get(VARIABLE, "").lower()
    if value not in _VERSIONS:
        raise ValueError(f"{VARIABLE} takes 1 (or gc200), 21 (or bow), or 0, got {value!r}")
    return _VERSIONS[value]


def is_available(num_ipus: int) -> bool:
    """Whether a program is told that there are so many IPUs."""
    is_pretended = pretended_version() is not None
    if not is_pretended:
        _refused.append("ipuHardwareIsAvailable")
    return is_pretended and 1 <= num_ipus <= MAX_IPUS


def version(num_ipus: int = 1) -> int:
    """Version of the IPUs that a program is told of; 0 where there are none."""
    found = pretended_version()
    if found is None:
        _refused.append("ipuHardwareVersion")
    return found or 0


def was_refused() -> bool:
    """Whether a program has asked for hardware in vain."""
    return bool(_refused)
