"""Section 1: what `import poptorch` offers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import poptorch

NAMES = """
trainingModel inferenceModel PoplarExecutor load Options TensorLocationSettings DataLoader AsynchronousDataAccessor DataLoaderMode
SharingStrategy Block BeginBlock BlockFunction removeBlocks Stage Phase PipelinedExecution ShardedExecution SerialPhasedExecution
ParallelPhasedExecution identity_loss recomputationCheckpoint for_loop cond custom_op CPU nop ipu_print_tensor serializedMatMul
set_available_memory set_overlap_for_input set_overlap_for_output MultiConv NameScope dynamic_slice dynamic_update
ctc_beam_search_decoder fps nearest ipuHardwareIsAvailable ipuHardwareVersion isRunningOnIpu setLogLevel logger registerPreCompileHook
registerPostCompileHook ICustomArgParser registerCustomArgParser Attribute ConfigFileError createPoptorchError __version__ Error
RecoverableError UnrecoverableError
""".split()
IN_MODULES = {
    "options": "_TrainingOptions _PrecisionOptions _PopartOptions _DistributedOptions _JitOptions _TensorLocationOptions Attribute",
    "optim": "Optimizer SGD Adam AdamW RMSprop LAMB VariableAttributes",
    "poptorch_core": "Error RecoverableError UnrecoverableError ipuHardwareVersion TestErrorType",
    "ops": "identity_loss for_loop",
    "enums": "OutputMode",
    "profiling": "Channel",
    "testing": "allclose",
    "_impl": "isDispatchTracing",
    "_poplar_executor": "PoplarExecutor _OverwriteContextManager",
    "_logging": "setLogLevel",
    "_args_parser": "ArgsParser",
    "_utils": "combine_batch_tensors_gen flattenTensorStructure",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_at_the_top(name):
    assert hasattr(poptorch, name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in IN_MODULES.items() for name in names.split()])
def test_names_in_modules(module, name):
    assert hasattr(importlib.import_module(f"poptorch.{module}"), name)


def test_importing_prepares_the_process():
    assert os.environ["RDMAV_FORK_SAFE"] == "1"


def test_models_print_with_the_blocks_that_they_begin(capsys):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    plain = repr(model)
    executor = poptorch.inferenceModel(model)
    assert repr(executor) == plain
    poptorch.BeginBlock(model[1], "second", ipu_id=1)
    text = repr(executor)
    assert "(1): BeginBlock(user_id=second, ipu_id=1) ReLU()" in text and "(0): Linear" in text


def test_there_is_no_hardware_where_there_is_none():
    if poptorch.ipuHardwareIsAvailable():
        assert poptorch.ipuHardwareVersion() in (1, 2, 21)
    else:
        assert poptorch.poptorch_core.ipuHardwareVersion() == 0
        with pytest.raises(AssertionError):
            poptorch.ipuHardwareVersion()


@pytest.mark.skipif("ipu_model" not in sys.modules, reason="real hardware needs no pretending")
@pytest.mark.parametrize(("switch", "version"), [("1", 2), ("gc200", 2), ("bow", 21), ("21", 21)])
def test_hardware_can_be_pretended(monkeypatch, switch, version):
    """For programs that ask, and leave where there is none."""
    monkeypatch.setenv("IPU_MODEL_PRETEND_HARDWARE", switch)
    assert all(poptorch.ipuHardwareIsAvailable(count) for count in range(1, 65)) and not poptorch.ipuHardwareIsAvailable(65)
    assert poptorch.ipuHardwareVersion() == version
    assert poptorch.poptorch_core.ipuHardwareVersion() == poptorch.poptorch_core.ipuHardwareVersion(num_ipus=4) == version
    options = poptorch.Options().logCycleCount(True)
    with pytest.raises(poptorch.Error, match="Cycle count logging is"):
        poptorch.inferenceModel(nn.Identity(), options)(torch.ones(1))


@pytest.mark.skipif("ipu_model" not in sys.modules, reason="real hardware needs no pretending")
def test_pretended_hardware_is_said_at_the_start():
    code = "import ipu_model, torch, poptorch\npoptorch.inferenceModel(torch.nn.Identity())(torch.ones(1))"
    for value, is_said in (("1", True), ("0", False)):
        environment = {**os.environ, "IPU_MODEL_PRETEND_HARDWARE": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ("hardware is only pretended" in done.stderr) == is_said
    wrong = {**os.environ, "IPU_MODEL_PRETEND_HARDWARE": "yes please"}
    done = subprocess.run([sys.executable, "-c", code], env=wrong, capture_output=True, text=True)
    assert "takes 1 (or gc200), 21 (or bow), or 0, got 'yes please'" in done.stderr


def test_tensors_of_flat_batches_are_joined_one_by_one():
    utilities = importlib.import_module("poptorch._utils")
    batches = [[torch.tensor([1]), torch.tensor([[2]])], [torch.tensor([3, 4]), torch.tensor([[5]])]]
    joined = utilities.combine_batch_tensors_gen(batches)
    assert next(joined).tolist() == [1, 3, 4] and next(joined).tolist() == [[2], [5]] and next(joined, None) is None


def test_a_library_gives_an_executor_a_parser_of_its_own():
    """Reset to None, or made from the module that is called."""
    parser = importlib.import_module("poptorch._args_parser").ArgsParser
    executor = poptorch.inferenceModel(nn.Linear(2, 2))
    executor._args_parser = None
    assert executor(torch.ones(1, 2)).shape == (1, 2)
    executor = poptorch.inferenceModel(nn.Linear(2, 2))
    executor._args_parser = parser(executor._model)
    assert executor(input=torch.ones(3, 2)).shape == (3, 2)


class Swapped:
    """Swaps an operator of another library; keeps what happened."""

    events = []

    def __enter__(self):
        self.events.append("in")
        type(self).operator = staticmethod(lambda x: x * 3)

    def __exit__(self, *exception):
        self.events.append("out")
        type(self).operator = staticmethod(lambda x: x * 2)

    operator = staticmethod(lambda x: x * 2)


def test_a_library_swaps_its_operators_while_forward_is_captured():
    class Model(nn.Module):
        def forward(self, x):
            return Swapped.operator(x)

    manager = importlib.import_module("poptorch._poplar_executor")._OverwriteContextManager
    manager.registerSubsitutionManager(Swapped)
    executor = poptorch.inferenceModel(Model())
    assert executor(torch.ones(1)).item() == 3 and Swapped.events == ["in", "out"]
    assert executor(torch.ones(1)).item() == 3 and Swapped.events == ["in", "out"]
    assert Swapped.operator(1) == 2


def test_structures_are_flattened_in_the_canonical_order():
    flatten = importlib.import_module("poptorch._utils").flattenTensorStructure
    assert flatten({"a": [1, (2, 3)], "b": 4}) == [1, 2, 3, 4]
    assert flatten({"b": 4, "a": [1, {"y": 3, "x": 2}]}, {"a": [0, {"x": 0, "y": 0}], "b": 0}) == [1, 2, 3, 4]


def test_types_of_poptorch_geometric_are_registered_at_import(tmp_path):
    package = tmp_path / "poptorch_geometric"
    package.mkdir()
    (package / "__init__.py").write_text("import poptorch\n")
    (package / "types.py").write_text("import poptorch\ndef registerCustomArgParsers(): print('registered', poptorch.Options.__name__)\n")
    code = ("import ipu_model\n" if "ipu_model" in sys.modules else "") + "import poptorch"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    for first in ("", "import poptorch_geometric\n"):
        command = [sys.executable, "-c", code.replace("import poptorch", first + "import poptorch")]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        assert done.stdout == "registered Options\n", done.stderr
