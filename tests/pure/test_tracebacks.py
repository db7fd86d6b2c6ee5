"""Which lines of an error a program's user sees."""

from __future__ import annotations

import linecache
import sys
import traceback
import types
from pathlib import Path

import pytest

from ipu_model.runtime import tracebacks

PACKAGE = Path(tracebacks.__file__).parent.parent


def function(file, text, **names):
    """`f` of a text that pretends to be a file."""
    linecache.cache[str(file)] = (len(text), None, text.splitlines(True), str(file))
    space = dict(names)
    exec(compile(text, str(file), "exec"), space)
    return space["f"]


@pytest.fixture
def torch_folder(monkeypatch, tmp_path):
    """A module that takes torch's place."""
    fake = types.ModuleType("torch")
    fake.__file__ = str(tmp_path / "torch" / "__init__.py")
    monkeypatch.setitem(sys.modules, "torch", fake)
    return tmp_path / "torch"


def shown(call):
    """Functions whose lines are shown, as `file:line of code`, and the text."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  whatever is raised
        lines = tracebacks.lines_of(error, error.__traceback__.tb_next)
    frames = [line for text in lines for line in text.splitlines() if line.startswith("    ") and not set(line.strip()) <= set("^~")]
    return [line.strip() for line in frames], "".join(lines)


OWN = PACKAGE / "runtime" / "made_up.py"


def test_what_this_package_refuses_ends_with_the_programs_line():
    refuse = function(OWN, "def f(x):\n    raise ValueError('expected 1, got 2')\n")
    program = function("/home/me/program.py", "def f():\n    refuse(2)\n", refuse=refuse)
    frames, text = shown(program)
    assert frames == ["refuse(2)"] and text.endswith("ValueError: expected 1, got 2\n") and tracebacks.FULL_TRACEBACK in text


@pytest.mark.parametrize("body", ["return {}['key']", "assert x is None"])
def test_a_bug_of_this_package_keeps_its_lines(body):
    """What Python raises there, and what its own invariants say, which have no message."""
    fail = function(OWN, f"def f(x):\n    {body}\n")
    program = function("/home/me/program.py", "def f():\n    fail(2)\n", fail=fail)
    frames, _ = shown(program)
    assert frames == ["fail(2)", body]


def test_everything_is_shown_on_request(monkeypatch):
    monkeypatch.setenv(tracebacks.FULL_TRACEBACK, "1")
    refuse = function(OWN, "def f(x):\n    raise ValueError('no')\n")
    frames, _ = shown(function("/home/me/program.py", "def f():\n    refuse(2)\n", refuse=refuse))
    assert frames == ["refuse(2)", "raise ValueError('no')"]


def test_what_torch_refuses_in_forward_ends_with_the_line_of_forward(torch_folder):
    """The program calls this package, which calls torch, which calls forward, which calls torch, with a look from this package."""
    inner = function(torch_folder / "ops.py", "def f():\n    raise RuntimeError('shapes')\n")
    look = function(OWN, "def f():\n    inner()\n", inner=inner)
    forward = function("/home/me/model.py", "def f():\n    look()  # forward\n", look=look)
    module = function(torch_folder / "module.py", "def f():\n    forward()\n", forward=forward)
    capture = function(PACKAGE / "runtime" / "made_up_too.py", "def f():\n    module()\n", module=module)
    frames, _ = shown(function("/home/me/program.py", "def f():\n    capture()\n", capture=capture))
    assert frames == ["capture()", "look()  # forward"]
    frames, _ = shown(function("/home/me/program.py", "def f():\n    look()\n", look=look))
    assert frames == ["look()", "inner()", "raise RuntimeError('shapes')"]  # torch did not like what this package gave it


def test_a_refusal_for_a_reason_inside_of_forward_is_one_error():
    forward = function("/home/me/model.py", "def f():\n    1 / 0  # forward\n")
    text = "def f():\n    try:\n        forward()\n    except ZeroDivisionError as error:\n        raise ValueError('advice') from error\n"
    capture = function(OWN, text, forward=forward)
    frames, text = shown(function("/home/me/program.py", "def f():\n    capture()\n", capture=capture))
    assert frames == ["capture()", "1 / 0  # forward"] and "ZeroDivisionError" not in text and text.endswith("ValueError: advice\n")


def test_what_a_program_caught_itself_comes_first():
    refuse = function(OWN, "def f():\n    raise ValueError('second')\n")
    text = "def f():\n    try:\n        {}['first']\n    except KeyError:\n        refuse()\n"
    frames, text = shown(function("/home/me/program.py", text, refuse=refuse))
    assert frames == ["{}['first']", "refuse()"] and text.index("KeyError: 'first'") < text.index("ValueError: second")


def test_a_program_without_this_package_is_shown_as_python_does():
    program = function("/home/me/program.py", "def f():\n    1 / 0\n")
    try:
        program()
    except ZeroDivisionError as error:
        assert tracebacks.lines_of(error, error.__traceback__) == traceback.format_exception(type(error), error, error.__traceback__)


def test_a_missing_guard_is_named():
    """What multiprocessing says where a program's processes run it again."""
    text = "An attempt has been made to start a new process before the current process has finished its bootstrapping phase."
    program = function("/home/me/program.py", f"def f():\n    raise RuntimeError({text!r})\n")
    assert '`if __name__ == "__main__":`' in shown(program)[1].splitlines()[-1]
