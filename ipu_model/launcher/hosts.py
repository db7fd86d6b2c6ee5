"""Starts the agent of a host, here or over ssh, and reads what it says."""

from __future__ import annotations

import os
import queue
import shlex
import socket
import subprocess
import sys
import threading
from typing import Any, Dict, List, NamedTuple, Optional

from .messages import receive
from .python_path import python_path

HANDED_ON = ("IPU_MODEL_", "POPTORCH_", "POPLAR_", "POPART_", "OMP_", "PYTHON", "PATH", "LD_LIBRARY_PATH", "WANDB_")  # to other hosts


class Event(NamedTuple):
    """A message of an agent, a line of other output, or (both None) that the agent of a host has ended."""

    host_index: int
    message: Optional[Dict[str, Any]]
    line: Optional[str]


def is_this_host(name: str) -> bool:
    """Whether a host needs no launcher command."""
    return name in ("localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn())


def handed_on_environment() -> Dict[str, str]:
    """Variables of this process that agents on other hosts get as well."""
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    return {**handed_on, "PYTHONPATH": python_path()}


class Agent:
    """The agent of one host; what it says goes to a queue of events."""

    def __init__(self, host_index: int, host: str, launcher: str, events: queue.Queue[Event]) -> None:
        self.host, self._host_index, self._events = host, host_index, events
        self.command = _command(host, launcher)
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C on the terminal goes to poprun alone
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = receive(line)
            self._events.put(Event(self._host_index, message, None if message else line))
        self._process.wait()
        self._events.put(Event(self._host_index, None, None))

    @property
    def exit_code(self) -> Optional[int]:
        """Of the agent, None while it runs."""
        return self._process.poll()

    def tell(self, line: str) -> None:
        """Send a line: the settings, "interrupt" or "terminate"."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # it has ended, or was given up
            pass

    def give_up(self) -> None:
        """Make it end, with everything that it has started."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _command(host: str, launcher: str) -> List[str]:
    own = [sys.executable, "-m", "ipu_model.launcher.agent"]
    if is_this_host(host):
        return own
    shell = f"cd {shlex.quote(os.getcwd())} && exec env PYTHONPATH={shlex.quote(python_path())} {' '.join(map(shlex.quote, own))}"
    return [word.replace("{host}", host).replace("{command}", shell) for word in shlex.split(launcher)]
