"""Sections 11, 12 and 16: errors, the log, environment variables."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

import poptorch


def test_errors_form_a_family():
    assert issubclass(poptorch.Error, RuntimeError)
    for kind in (poptorch.RecoverableError, poptorch.UnrecoverableError):
        assert issubclass(kind, poptorch.Error)
        assert getattr(poptorch.poptorch_core, kind.__name__) is kind
    error = poptorch.createPoptorchError("text")
    assert isinstance(error, poptorch.Error) and "text" in str(error)


@pytest.fixture
def level():
    before = poptorch.logger.level
    yield
    poptorch.logger.setLevel(before)


@pytest.mark.parametrize(("name", "shown"), [("TRACE", True), ("WARN", True), ("ERR", False), ("OFF", False), (3, True), (4, False)])
def test_log_levels(level, name, shown):
    poptorch.setLogLevel(name)
    assert poptorch.logger.isEnabledFor(logging.WARNING) == shown


def test_unknown_log_levels(level):
    with pytest.raises(ValueError, match="Invalid log level integer"):
        poptorch.setLogLevel(5)
    with pytest.raises(ValueError, match="Unknown log level: LOUD.*DEBUG, DEBUG_IR, ERR"):
        poptorch.setLogLevel("LOUD")


def in_a_process(code, **environment):
    setup = "import ipu_model, poptorch\n" if "ipu_model" in sys.modules else "import poptorch\n"
    return subprocess.run([sys.executable, "-c", setup + code], env={**os.environ, **environment}, capture_output=True, text=True)


def test_the_log_goes_where_it_is_sent(tmp_path):
    path = tmp_path / "log.txt"
    code = "poptorch.logger.warning('hello')\npoptorch.logger.info('hidden')"
    assert re.search(r"^\[\d\d:\d\d:\d\d\.\d{3}\] \[poptorch::python\] \[warning\] hello$", in_a_process(code).stderr, re.M)
    assert "hidden" in in_a_process(code, POPTORCH_LOG_LEVEL="INFO").stderr
    in_a_process(code, POPTORCH_LOG_DEST=str(path))
    assert "hello" in path.read_text()


def test_uncaught_exceptions_are_logged_and_printed():
    result = in_a_process("raise ValueError('what happened')")
    assert result.returncode == 1
    assert "[critical] ValueError: what happened" in result.stderr and "Traceback" in result.stderr
