"""Names that programs take from PopTorch's compiled module."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Mapping

from ipu_model.runtime.errors import (
    Error as Error,
    RecoverableError as RecoverableError,
    UnrecoverableError as UnrecoverableError,
)
from ipu_model.runtime.forward.recording import current_recording

from . import _hardware
from ._options.popart_keys import check_key, check_value
from .enums import OutputMode
from .options import Options


class TestErrorType(IntEnum):
    """Kinds of errors that `_throwTestError` raises, for programs that try their error handling."""

    __test__ = False  # no test class, whatever its name

    Poptorch = 0
    Popart = 1
    PopartInternal = 2
    Poplibs = 3
    PoplarUnrecoverable = 4
    PoplarUnknown = 5
    PoplarRecoverableFullReset = 6
    PoplarLinkError = 7


# Entries of `Options.toDict()` that are there only once set.
_SOMETIMES = """
    random_seed ipu_version use_model ipu_id model_name numIOTiles location_activation location_weight location_optimizer
    location_accumulator separate_backward_phase tensors_liveness serial_phases_execution
""".split()
_KINDS = {TestErrorType.PoplarUnrecoverable: UnrecoverableError, TestErrorType.PoplarRecoverableFullReset: RecoverableError}


def ipuHardwareVersion(num_ipus: int = 1) -> int:
    """Version of the hardware, real or pretended; 0 where there is none."""
    return _hardware.version(num_ipus)


def isCompilingWithDispatcher() -> bool:
    """Whether a model is being captured."""
    return current_recording() is not None


def _throwTestError(kind: TestErrorType) -> None:
    kind = TestErrorType(kind)
    raise _KINDS.get(kind, Error)(f"An error on request: {kind.name}.", type=f"test_error_{kind.name}", location="poptorch_core")


def _validateOptions(values: Mapping[str, Any]) -> None:
    """`Error` for an entry of an `Options.toDict()` that is no option, or has a value that no option can have."""
    known = {*Options().outputMode(OutputMode.All).toDict(), *_SOMETIMES}
    for key, value in values.items():
        if key not in known:
            check_key(key)
        check_value(key, value)
