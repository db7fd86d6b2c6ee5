"""How a program ends: its exit code, and what is said, after a user's mistake, Ctrl-C or a closed pipe."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from typing import Callable, Tuple, Type

from config import UserError

MISTAKE = 1  # argparse ends with 2, before anything has run
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE


def run_program(name: str, story: Callable[[], int], library_errors: Callable[[], Tuple[Type[Exception], ...]] = tuple) -> int:
    """Run a program's story; its exit code.

    A `UserError` is one line on stderr and exit code 1; so is an error of the types that `library_errors` names, which is asked only
    then, since it imports libraries. Anything else is a bug of ours and keeps its traceback. Where nobody reads standard output any
    more (`| head`), the program ends without a word, with the exit code of SIGPIPE.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Messages(sys.stdout)])
    try:
        code = story()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return PIPE_CLOSED
    except Exception as error:
        if not isinstance(error, (UserError, *library_errors())):
            raise
        message = getattr(error, "message", None) or str(error)  # poptorch.Error has a message without its location
        sys.stderr.write(f"{name}: error: {message}\n")
        return MISTAKE


def _has_no_reader(file: int) -> bool:
    poll = select.poll()
    poll.register(file, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


class _Messages(logging.StreamHandler):
    """Logged messages, as print would print them: logging itself would report a closed pipe and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)
