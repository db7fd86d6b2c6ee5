"""Sections 11, 12 and 16: errors, the log, environment variables."""

from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch

import poptorch


def test_errors_form_a_family():
    assert issubclass(poptorch.Error, RuntimeError)
    for kind in (poptorch.RecoverableError, poptorch.UnrecoverableError):
        assert issubclass(kind, poptorch.Error)
        assert getattr(poptorch.poptorch_core, kind.__name__) is kind
    error = poptorch.createPoptorchError("text")
    assert isinstance(error, poptorch.Error) and "text" in str(error)


def test_errors_belong_to_the_compiled_module():
    """What tracebacks and the critical log line show, and people search for."""
    for kind in (poptorch.Error, poptorch.RecoverableError, poptorch.UnrecoverableError):
        assert kind.__module__ == "poptorch.poptorch_core"
    error = poptorch.createPoptorchError("text")
    assert str(error) == "'poptorch_py_error': text" and (error.type, error.message) == ("poptorch_py_error", "text")
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.message) == (poptorch.Error, str(error), "text")


def test_errors_of_the_backend_say_where():
    options = poptorch.Options()
    options._Popart.set("nonsense", 1)
    with pytest.raises(poptorch.Error) as raised:
        poptorch.inferenceModel(torch.nn.Identity(), options)(torch.ones(1))
    assert re.match(r"In \S+:\d+: 'poptorch_cpp_error': ", str(raised.value)) and raised.value.location in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Poptorch", poptorch.Error), ("Popart", poptorch.Error), ("PopartInternal", poptorch.Error), ("Poplibs", poptorch.Error),
        ("PoplarUnknown", poptorch.Error), ("PoplarLinkError", poptorch.Error),
        ("PoplarUnrecoverable", poptorch.UnrecoverableError), ("PoplarRecoverableFullReset", poptorch.RecoverableError),
    ],
)  # fmt: skip
def test_errors_on_request(kind, expected):
    """For programs that try their error handling."""
    core = poptorch.poptorch_core
    with pytest.raises(poptorch.Error) as raised:
        core._throwTestError(getattr(core.TestErrorType, kind))
    assert type(raised.value) is expected
    if expected is poptorch.RecoverableError:
        assert raised.value.recovery_action == "FULL_RESET"


def test_options_as_a_dict_are_validated():
    options = poptorch.Options().outputMode(poptorch.OutputMode.All).randomSeed(1).modelName("m").useIpuId(2)
    options.setExecutionStrategy(poptorch.SerialPhasedExecution("a")).enableExecutableCaching(None).setAvailableMemoryProportion(
        {"IPU0": 0.1}
    )
    options.TensorLocations.numIOTiles(32).setWeightLocation(poptorch.TensorLocationSettings().useOnChipStorage(True))
    options._Popart.set("engineOptions", {"a": "b"})
    poptorch.poptorch_core._validateOptions(options.toDict())
    with pytest.raises(poptorch.Error, match="notAnOption"):
        poptorch.poptorch_core._validateOptions({**options.toDict(), "notAnOption": 1})
    with pytest.raises(poptorch.Error, match="engineOptions"):
        poptorch.poptorch_core._validateOptions({**options.toDict(), "engineOptions": {"a": object()}})


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
    result = in_a_process("raise poptorch.createPoptorchError('what happened')")
    assert "[critical] poptorch.poptorch_core.Error: 'poptorch_py_error': what happened" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("poptorch.poptorch_core.Error: ")
