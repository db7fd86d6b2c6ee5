"""Section 1: what `import poptorch` offers."""

from __future__ import annotations

import importlib
import os

import pytest
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
    "poptorch_core": "Error RecoverableError UnrecoverableError ipuHardwareVersion",
    "ops": "identity_loss for_loop",
    "enums": "OutputMode",
    "profiling": "Channel",
    "testing": "allclose",
    "_impl": "isDispatchTracing",
    "_poplar_executor": "PoplarExecutor",
    "_logging": "setLogLevel",
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
        with pytest.raises(AssertionError):
            poptorch.ipuHardwareVersion()
