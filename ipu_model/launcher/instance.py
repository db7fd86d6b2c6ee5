"""One instance: starts the program with its environment, hands on its output and signals, and tells how it ended.

The agent's torch.distributed.run starts this once for each local rank. Signals: SIGUSR1 and SIGUSR2 hand an interruption on (SIGINT and
SIGTERM) and leave the program its time; SIGTERM, from torch.distributed.run, means that another instance has failed.
"""

from __future__ import annotations

import codecs
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional

from .messages import send, send_output
from .parent_death import die_with_parent

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL when another instance has failed
SETTINGS = "IPU_MODEL_AGENT"  # what the agent tells its instances, as JSON
LOST_PEER_FILE = "IPU_MODEL_LOST_PEER_FILE"  # written by the program when it ends because another instance has


class Instance:
    """The program of one instance, from its start to its end."""

    def __init__(self, index: int, program: List[str], environment: Dict[str, str]) -> None:
        self.index = index
        self._program, self._environment = program, environment
        self._child: Optional[subprocess.Popen] = None
        self._is_stopping = False
        self._is_terminated = False

    def run(self) -> Dict[str, Any]:
        """Run to the end; gives `code`, and whether the end was asked for or follows from another instance's."""
        with tempfile.TemporaryDirectory() as folder:
            mark = Path(folder) / "lost-peer"
            self._environment[LOST_PEER_FILE] = str(mark)
            self._start()
            if self._child is None:
                return {"code": 127, "is_stopped": False, "is_consequence": False}
            if self._is_stopping or self._is_terminated:  # before there was a program to tell
                self._signal(signal.SIGTERM)
            readers = [threading.Thread(target=self._hand_on, args=(name,), daemon=True) for name in ("stdout", "stderr")]
            for reader in readers:
                reader.start()
            code = self._child.wait()
            for reader in readers:
                reader.join(timeout=2.0)  # a process that the program left behind may keep them open
            return {"code": code, "is_stopped": self._is_stopping, "is_consequence": self._is_terminated or mark.exists()}

    def _start(self) -> None:
        try:
            self._child = subprocess.Popen(
                self._program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            send_output(self.index, "stderr", f"cannot start {self._program[0]}: {error.strerror}{_advice(self._program)}\n")

    def _hand_on(self, stream: str) -> None:
        pipe = getattr(self._child, stream)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            data = os.read(pipe.fileno(), 65536)
            send_output(self.index, stream, decoder.decode(data, final=not data))
            if not data:
                return

    def handle(self, number: int, frame: Any) -> None:
        """A signal: see the module's description."""
        if number == signal.SIGTERM:
            if not self._is_stopping:
                self._is_terminated = True
                self._signal(signal.SIGTERM)
            timer = threading.Timer(GRACE_SECONDS, self._signal, args=(signal.SIGKILL,))
            timer.daemon = True
            timer.start()
            return
        self._is_stopping = True
        self._signal(signal.SIGINT if number == signal.SIGUSR1 else signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, number)


def _advice(program: List[str]) -> str:
    """What to type instead of a program that cannot start."""
    name = program[0]
    words = " ".join(map(shlex.quote, program))
    if name.endswith(".py") and os.path.exists(name):
        return f"; type python {words}"
    if name in ("python", "python3"):
        return f"; type {shlex.quote(sys.executable)} {' '.join(map(shlex.quote, program[1:]))}"
    return ""


def _bind_to_numa_node(local: int, num_local: int) -> None:
    """Keep to the cores of one NUMA node; instances are spread over the nodes in order."""
    files = sorted(Path("/sys/devices/system/node").glob("node[0-9]*/cpulist"), key=lambda path: int(path.parent.name[4:]))
    nodes = [cores & os.sched_getaffinity(0) for cores in (_cores(path.read_text()) for path in files)]
    nodes = [cores for cores in nodes if cores]
    if nodes:
        os.sched_setaffinity(0, nodes[local * len(nodes) // num_local])


def _cores(text: str) -> set:
    """Numbers of a list such as 0-3,8."""
    ranges = [part.split("-") for part in text.strip().split(",") if part]
    return {core for bounds in ranges for core in range(int(bounds[0]), int(bounds[-1]) + 1)}


def main() -> None:
    """Run this instance; the exit code is the program's, or 0 where it was asked to stop, which is no failure."""
    die_with_parent(signal.SIGTERM)
    settings = json.loads(os.environ.pop(SETTINGS))
    local = int(os.environ["LOCAL_RANK"])
    index = settings["first_instance"] + local
    if settings["is_numa_aware"] and hasattr(os, "sched_setaffinity"):
        _bind_to_numa_node(local, settings["num_local"])
    instance = Instance(index, sys.argv[1:], {**os.environ, **settings["instances"][local]})
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, instance.handle)
    (Path(settings["folder"]) / f"{os.getpid()}.pid").touch()
    send(instance=index, started=True, round=settings["round"])
    end = instance.run()
    send(instance=index, ended=True, round=settings["round"], **end)
    code = end["code"]
    sys.exit(0 if end["is_stopped"] else 128 - code if code < 0 else code)


if __name__ == "__main__":
    main()
