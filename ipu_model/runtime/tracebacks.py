"""How an error that a program does not handle is shown: its own lines, without the frames of torch and of this package.

A mistake that this package or torch refuses is the program's: its own line comes last, then what was expected. A bug of this package keeps
all of its frames, as does everything under IPU_MODEL_FULL_TRACEBACK=1.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, List, Optional, Type

FULL_TRACEBACK = "IPU_MODEL_FULL_TRACEBACK"
_OWN = str(Path(__file__).resolve().parent.parent) + os.sep
_STANDARD = sysconfig.get_path("stdlib") + os.sep
_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_HINT = f"(frames of torch and of the IPU Model are not shown; {FULL_TRACEBACK}=1 shows them)\n"
_GUARD = (
    'The program has no `if __name__ == "__main__":`, and a process that it started would run it again: put what runs under that line.\n'
)
_THEN = "During handling of the above exception, another exception occurred:"
Frames = List[traceback.FrameSummary]


def show(kind: Type[BaseException], error: BaseException, frames: Optional[TracebackType]) -> None:
    """Print an error on standard error: for sys.excepthook."""
    sys.stderr.write("".join(lines_of(error, frames)))
    sys.stderr.flush()


def lines_of(error: BaseException, frames: Optional[TracebackType]) -> List[str]:
    """What `show` prints."""
    summaries = list(traceback.extract_tb(frames))
    is_whole = os.environ.get(FULL_TRACEBACK, "0") not in ("", "0") or not any(map(_is_hidden, summaries)) or _is_own_bug(error, summaries)
    shown = [] if is_whole else _shown(summaries)
    cause = None if is_whole else _cause(error)
    while cause is not None and _is_caught_inside(cause):
        # What was refused first lies deeper in the program; what is said of it is the last error's.
        shown += _shown(list(traceback.extract_tb(cause.__traceback__)))
        cause = _cause(cause)
    if not shown:
        return traceback.format_exception(type(error), error, frames) + _advice(error)
    before = [] if cause is None else [*lines_of(cause, cause.__traceback__), f"\n{_THEN}\n\n"]
    lines = traceback.StackSummary.from_list(shown).format()
    said = traceback.format_exception_only(type(error), error)
    return [*before, _HINT, "Traceback (most recent call last):\n", *lines, *said, *_advice(error)]


def _advice(error: BaseException) -> List[str]:
    is_unguarded = isinstance(error, RuntimeError) and "bootstrapping phase" in str(error)
    return [_GUARD] if is_unguarded else []


def _cause(error: BaseException) -> Optional[BaseException]:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_caught_inside(error: BaseException) -> bool:
    """Whether torch or this package caught an error, rather than the program."""
    frames = traceback.extract_tb(error.__traceback__, limit=1)
    return not frames or _is_hidden(frames[0])


def _is_own(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OWN)


def _is_hidden(frame: traceback.FrameSummary) -> bool:
    torch: Any = sys.modules.get("torch")
    folder = os.path.dirname(torch.__file__) + os.sep if torch is not None and torch.__file__ else None
    return _is_own(frame) or (folder is not None and frame.filename.startswith(folder))


def _is_between(frame: traceback.FrameSummary) -> bool:
    """Of the standard library, or generated: it belongs to what has called it."""
    name = frame.filename
    is_generated = name.startswith(("<eval_with_key", "<frozen")) or (name, frame.name) == ("<string>", "<lambda>")
    return is_generated or (name.startswith(_STANDARD) and not any(part in name for part in _PACKAGES))


def _shown(summaries: Frames) -> Frames:
    """The frames of a program, and of libraries other than torch."""
    shown: Frames = []
    is_hidden = False
    for frame in summaries:
        is_hidden = _is_hidden(frame) or (is_hidden and _is_between(frame))
        if not is_hidden:
            shown.append(frame)
    return shown


def _is_own_bug(error: BaseException, summaries: Frames) -> bool:
    """Whether this package failed, rather than refused, or torch with what this package gave it."""
    own = [index for index, frame in enumerate(summaries) if _is_own(frame)]
    runs_program = bool(own) and any(not _is_hidden(frame) and not _is_between(frame) for frame in summaries[own[0] :])
    if not own or own[-1] != len(summaries) - 1:  # raised by torch, or by the program
        return bool(own) and not runs_program
    return not ((summaries[-1].line or "").startswith(("raise", "assert")) and str(error))
