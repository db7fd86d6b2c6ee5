"""How programs end."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cli import run_program
from config import ConfigError, UserError

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("config", "models", "datasets", "ipu_options", "training")


class LibraryError(RuntimeError):
    """With a message beside its text, as poptorch.Error has."""

    message = "without its location"


def raising(error):
    def story():
        raise error

    return story


def test_a_story_ends_with_its_own_exit_code():
    assert [run_program("p", lambda code=code: code) for code in (0, 1, 143)] == [0, 1, 143]


@pytest.mark.parametrize("error", [UserError("what came"), ConfigError("what came")])
def test_a_users_mistake_is_one_line_and_exit_code_1(capsys, error):
    assert run_program("p", raising(error)) == 1
    assert capsys.readouterr().err == "p: error: what came\n"


def test_an_error_of_a_library_is_a_users_mistake_where_the_program_says_so(capsys):
    assert run_program("p", raising(LibraryError("file.cpp:3")), lambda: (LibraryError,)) == 1
    assert capsys.readouterr().err == "p: error: without its location\n"
    with pytest.raises(LibraryError):
        run_program("p", raising(LibraryError()))


@pytest.mark.parametrize("error", [ValueError("math domain error"), RuntimeError("shape"), KeyError("k"), OSError("no")])
def test_a_bug_keeps_its_traceback(capsys, error):
    with pytest.raises(type(error)):
        run_program("p", raising(error), lambda: (LibraryError,))
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_one_line_also_while_libraries_are_imported(capsys):
    assert run_program("p", raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "p: interrupted\n"


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(tmp_path):
    text = "import sys; from cli import run_program\nsys.exit(run_program('p', lambda: [print('x' * 100000)] and 0))"
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (141, b"")  # 128 + SIGPIPE


def _raised(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.exc.func.id


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_raise_errors_that_say_whose_mistake_it_is(room):
    """A bare ValueError would be taken for a bug. Those in config become ConfigError by pydantic."""
    allowed = {"config/sections.py", "config/resolved.py"}
    bare = {str(path.relative_to(ROOT)) for path in (ROOT / room).rglob("*.py") if {"ValueError", "RuntimeError"} & set(_raised(path))}
    assert bare <= allowed
