"""PopTorch's log: lines `[HH:MM:SS.mmm] [poptorch::python] [level] message` on stderr, from WARN upwards."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Type, Union

from ipu_model.runtime import tracebacks

logger = logging.getLogger("poptorch::python")

_LEVELS = {"TRACE_ALL": 1, "TRACE": 5, "DEBUG_IR": 8, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40, "OFF": 100}
_BY_NUMBER = {0: "TRACE", 1: "DEBUG", 2: "INFO", 3: "WARN", 4: "ERR", 6: "OFF"}
_NAMES = {logging.WARNING: "warning", logging.ERROR: "err", logging.CRITICAL: "critical"}


def setLogLevel(level: Union[str, int]) -> None:
    """Show messages from this level on.

    Raises:
        ValueError: an unknown name or number.
    """
    if isinstance(level, int):
        if level not in _BY_NUMBER:
            raise ValueError(f"Invalid log level integer {level}: expected one of {sorted(_BY_NUMBER)}")
        level = _BY_NUMBER[level]
    if level not in _LEVELS:
        raise ValueError(f"Unknown log level: {level}. Level must be one of {', '.join(sorted(_LEVELS))}")
    logger.setLevel(_LEVELS[level])


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = f"{self.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d}"
        level = _NAMES.get(record.levelno, record.levelname.lower())
        return f"[{time}] [poptorch::python] [{level}] {super().format(record)}"


class _Stderr(logging.StreamHandler):
    """Writes to what sys.stderr is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def set_up() -> None:
    """Level and destination from POPTORCH_LOG_LEVEL and POPTORCH_LOG_DEST; uncaught exceptions are logged, then printed."""
    destination = os.environ.get("POPTORCH_LOG_DEST", "stderr")
    if destination == "stderr":
        handler: logging.Handler = _Stderr()
    elif destination == "stdout":
        handler = logging.StreamHandler(sys.stdout)
    else:
        handler = logging.FileHandler(destination, delay=True)
    handler.setFormatter(_Formatter())
    logger.handlers = [handler]
    setLogLevel(os.environ.get("POPTORCH_LOG_LEVEL", "WARN"))
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: Type[BaseException], error: BaseException, traceback: Any) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
        logger.critical("%s%s: %s", module, kind.__qualname__, error)
    tracebacks.show(kind, error, traceback)
