"""Processes that load images: losing one is one line, at the next batch; a signal to the program's group does not reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each starts a program that imports torch
PROGRAM = """
    import os, signal, sys, time
    sys.path.insert(0, {root!r})
    import ipu_model, poptorch, torch
    from datasets.images import ImageSet
    from datasets.loader import build_training_loader
    from datasets.errors import DataError

    class Slow(ImageSet):
        def __len__(self):
            return 400
        def load(self, key):
            time.sleep({seconds})
            return torch.full((3, 4, 4), os.getpid() % 256, dtype=torch.uint8), os.getpid()
        def name(self, index):
            return str(index)

    loader, order = build_training_loader(Slow(["a", "b"], 4), poptorch.Options(), 4, seed=0, num_workers=2)
    batches = iter(loader)
    worker = int(next(batches)[1][0])
"""


def run(body, seconds=0.0):
    text = textwrap.dedent(PROGRAM).format(root=str(ROOT), seconds=seconds) + textwrap.dedent(body)
    process = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, start_new_session=True)
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_killed_worker_is_said_at_the_next_batch_and_disturbs_nothing_before(name):
    code, output, error = run(
        f"""
        os.kill(worker, signal.{name})
        for _ in range(200):
            time.sleep(0.005)  # the signal of the ended child arrives here, where torch would raise
        print("undisturbed")
        try:
            list(batches)
        except DataError as error:
            print(error)
        """
    )
    lines = output.splitlines()
    assert (code, lines[0], len(lines)) == (0, "undisturbed", 2), error
    assert "a process that loads images was killed" in lines[1] and "--num-workers" in lines[1]
    assert "Traceback" not in error


def test_a_worker_that_is_killed_while_it_is_waited_for_is_said():
    code, output, error = run(
        """
        import threading
        threading.Timer(0.3, lambda: os.kill(worker, signal.SIGKILL)).start()
        try:
            list(batches)
        except DataError as error:
            print(error)
        """,
        seconds=0.05,
    )
    assert code == 0 and output.startswith("a process that loads images was killed") and "Traceback" not in error


def test_signals_to_the_group_leave_the_workers_alone():
    code, output, error = run(
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: print("told"))
            os.killpg(os.getpgrp(), number)
        print(len(list(batches)))
        """
    )
    assert (code, output.split()) == (0, ["told", "told", "99"]), error  # 400 / 4, of which the first was taken


def test_a_bug_in_a_worker_keeps_its_traceback():
    code, _, error = run(
        """
        Slow.load = lambda self, key: 1 / 0
        loader, _ = build_training_loader(Slow(["a", "b"], 4), poptorch.Options(), 4, seed=0, num_workers=1)
        next(iter(loader))
        """
    )
    assert code == 1 and "ZeroDivisionError" in error and "Traceback" in error


def test_workers_end_with_a_program_that_is_killed():
    code, output, _ = run("print(worker, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert code == -signal.SIGKILL
    wait_for_the_end_of(int(output))


def test_a_worker_that_begins_after_its_program_was_killed_ends_too():
    """torch compares a worker's parent with that at its beginning, which is not the program any more."""
    code, output, _ = run(
        """
        import datasets.loader
        first = datasets.loader.leave_group
        def late(number):
            print(os.getpid(), flush=True)
            time.sleep(1)
            first(number)
        datasets.loader.leave_group = late
        loader, _ = build_training_loader(Slow(["a", "b"], 4), poptorch.Options(), 4, seed=0, num_workers=1)
        batches = iter(loader)
        import threading
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        next(batches)
        """
    )
    assert code == -signal.SIGKILL
    wait_for_the_end_of(int(output.split()[-1]))


def wait_for_the_end_of(process):
    for _ in range(300):  # torch's workers look for their parent every 5 s
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{process}/stat").read_text().split(")")[-1].split()[0] == "Z":
            return
        signal.sigtimedwait([], 0.1)
    os.kill(process, signal.SIGKILL)
    pytest.fail("a worker outlives its program")
