"""Sections 2.1 and 18.4: options from files, printed, and as a dict."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import poptorch


def test_json_and_files(tmp_path):
    options = poptorch.Options().from_json(
        '{"deviceIterations": 3, "outputMode": ["OutputMode.EveryN", 2], "Training.gradientAccumulation": 4}'
    )
    assert (options.device_iterations, options.output_return_period, options.Training.gradient_accumulation) == (3, 2, 4)
    path = tmp_path / "options.cfg"
    path.write_text(
        "# a comment\n\ndeviceIterations(2)\nTraining.gradientAccumulation(5)\nsetExecutionStrategy(poptorch.ShardedExecution())\n"
    )
    options.loadFromFile(str(path))
    assert (options.device_iterations, options.Training.gradient_accumulation) == (2, 5)


def test_only_a_syntax_error_in_a_file_is_a_config_file_error(tmp_path):
    path = tmp_path / "options.cfg"
    path.write_text("deviceIterations(2)\n\n# next\ndeviceIterations(3\n")
    with pytest.raises(poptorch.ConfigFileError, match=r"SyntaxError at line [45] of options.cfg: .*"):
        poptorch.Options().loadFromFile(str(path))
    path.write_text("deviceIterations(2)\nnoSuchThing(1)\n")
    with pytest.raises(AttributeError, match="noSuchThing"):
        poptorch.Options().loadFromFile(str(path))
    path.write_text("deviceIterations('two')\n")
    with pytest.raises(AssertionError, match="deviceIterations"):
        poptorch.Options().loadFromFile(str(path))


def test_a_line_of_a_file_may_assign(tmp_path):
    path = tmp_path / "options.cfg"
    path.write_text("broadcast_buffers = False\nTraining.gradient_accumulation = 3\n")
    options = poptorch.Options().loadFromFile(str(path))
    assert (options.broadcast_buffers, options.Training.gradient_accumulation) == (False, 3)


def test_to_dict_needs_an_output_mode():
    with pytest.raises(AssertionError):
        poptorch.Options().toDict()
    values = poptorch.Options().outputMode(poptorch.OutputMode.All).toDict()
    assert (values["replication_factor"], values["gradient_accumulation"], values["device_iterations"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (poptorch.PipelinedExecution(), dict(execution_mode=0)),
        (poptorch.ShardedExecution(), dict(execution_mode=1)),
        (
            poptorch.SerialPhasedExecution("a", "b").setTensorsLiveness(poptorch.Liveness.OffChipAfterEachPhase),
            dict(execution_mode=2, separate_backward_phase=False, tensors_liveness=3, serial_phases_execution=True),
        ),
        (
            poptorch.ParallelPhasedExecution("a", "b").useSeparateBackwardPhase(True),
            dict(execution_mode=2, separate_backward_phase=True, tensors_liveness=0, serial_phases_execution=False),
        ),
    ],
)
def test_to_dict_has_the_strategy_by_number(strategy, expected):
    values = poptorch.Options().outputMode(poptorch.OutputMode.All).setExecutionStrategy(strategy).toDict()
    assert {name: int(values[name]) for name in expected} == {name: int(value) for name, value in expected.items()}
    assert not [name for name in values if name.startswith("_")]


def test_repr_shows_values_and_groups():
    text = repr(poptorch.Options().deviceIterations(9))
    assert text.startswith("Options(") and "device_iterations=9" in text and "gradient_accumulation=1" in text
    for group in ("Training", "Precision", "TensorLocations", "Distributed", "Jit", "_Popart"):
        assert f"{group}=" in text
    for hidden in ("strategy", "Execution", "progress", "namescope", "optimizer_checks", "excludes", " at 0x"):
        assert hidden not in text


class Unprintable:
    pass


def test_equal_settings_print_equal_text():
    """Whatever the order of the setters, and whatever objects are kept in PopART's options."""

    def first():
        options = poptorch.Options().randomSeed(3).modelName("m").setExecutionStrategy(poptorch.ShardedExecution())
        options.setAvailableMemoryProportion({"IPU0": 0.1, "IPU1": 0.2})
        options._Popart.set("engineOptions", {"a": "1", "b": "2"})
        options._Popart.set("customCodelets", [Unprintable(), print])
        return options

    def second():
        options = poptorch.Options()
        options._Popart.set("customCodelets", [Unprintable(), print])
        options._Popart.set("engineOptions", {"b": "2", "a": "1"})
        return options.setAvailableMemoryProportion({"IPU1": 0.2, "IPU0": 0.1}).modelName("m").randomSeed(3)

    assert repr(first()) == repr(second())
    assert repr(first()) != repr(first().deviceIterations(2))


def test_equal_settings_print_equal_text_in_another_process():
    code = "import poptorch\nprint(poptorch.Options().deviceIterations(3).setAvailableMemoryProportion({'IPU0': 0.1, 'IPU1': 0.2}))"
    setup = "import ipu_model\n" if "ipu_model" in sys.modules else ""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", setup + code], env=environment, capture_output=True, text=True, check=True)
    options = poptorch.Options().deviceIterations(3).setAvailableMemoryProportion({"IPU0": 0.1, "IPU1": 0.2})
    assert done.stdout == f"{options}\n"
