"""The processes that load images, and what becomes of a run that loses one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from types import FrameType
from typing import Any, Iterable, Iterator, Optional

from .errors import DataError

GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # what terminals and schedulers send to a whole group


def leave_group(_number: int) -> None:
    """In a new worker: be in a process group of its own, so that Ctrl-C and a scheduler's signal reach the program alone.

    The program then ends its workers. torch's workers end by themselves when their parent changes, so one whose parent has gone before
    it begins, which torch would never notice, ends here.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
    os.setpgid(0, 0)
    while signal.sigtimedwait(GROUP_SIGNALS, 0):  # what came before
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def fetched(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader whose workers begin with `leave_group`; DataError where one was killed, and never anywhere else."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)  # workers inherit it, until they have left the group
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _watch_for_losses()
    while True:
        with _losses:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise _lost(str(error)) from None
        yield batch


class _Losses:
    """Whether a worker was lost, and whether somebody waits for one.

    torch raises its error for a lost worker from a signal's handler: in the middle of whatever the program does. Here it is kept until
    the next batch is asked for, unless that is being waited for.
    """

    def __init__(self) -> None:
        self._message: Optional[str] = None
        self._is_waiting = False

    def note(self, message: str) -> None:
        self._message = message
        if self._is_waiting:
            self._raise()

    def __enter__(self) -> None:
        self._is_waiting = True
        self._raise()

    def __exit__(self, *_: Any) -> None:
        self._is_waiting = False

    def _raise(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            self._is_waiting = False
            raise _lost(message)


_losses = _Losses()  # of this process, as signal handlers are


def _lost(message: str) -> DataError:
    reason = " ".join(message.split()).rstrip(".")
    return DataError(f"a process that loads images was killed, often because memory is short: try fewer --num-workers ({reason})")


def _watch_for_losses() -> None:
    """Take the place of torch's handler of ended children, which it sets with its first worker."""
    theirs = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or not callable(theirs) or isinstance(theirs, _Handler):
        return
    signal.signal(signal.SIGCHLD, _Handler(theirs))


class _Handler:
    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def __call__(self, number: int, frame: Optional[FrameType]) -> None:
        try:
            self._theirs(number, frame)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            _losses.note(str(error))
