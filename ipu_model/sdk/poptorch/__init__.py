"""PopTorch's Python API on the IPU Model."""

from __future__ import annotations

import logging
import os
from typing import Any, Optional

from ipu_model.runtime.errors import (
    Error as Error,
    RecoverableError as RecoverableError,
    UnrecoverableError as UnrecoverableError,
    absent as _absent,
)

from . import enums as enums, optim as optim, options as options
from ._data import AsynchronousDataAccessor as AsynchronousDataAccessor, DataLoader as DataLoader
from ._execution import (
    BeginBlock as BeginBlock,
    Block as Block,
    BlockFunction as BlockFunction,
    ParallelPhasedExecution as ParallelPhasedExecution,
    Phase as Phase,
    PipelinedExecution as PipelinedExecution,
    SerialPhasedExecution as SerialPhasedExecution,
    ShardedExecution as ShardedExecution,
    Stage as Stage,
    removeBlocks as removeBlocks,
)
from ._poplar_executor import PoplarExecutor as PoplarExecutor
from .enums import *  # noqa: F403  every enum is a top-level name of PopTorch
from .ops import (
    identity_loss as identity_loss,
    isRunningOnIpu as isRunningOnIpu,
    nop as nop,
    recomputationCheckpoint as recomputationCheckpoint,
    set_available_memory as set_available_memory,
)
from .options import ConfigFileError as ConfigFileError, Options as Options, TensorLocationSettings as TensorLocationSettings

__version__ = "3.4.0"  # the release whose behaviour is modelled
logger = logging.getLogger("poptorch::python")
os.environ.setdefault("RDMAV_FORK_SAFE", "1")

_ABSENT = {
    "for_loop": "a Python loop, which is unrolled while capturing",
    "cond": "torch.where",
    "custom_op": "the same mathematics in torch operations",
    "CPU": "torch operations in forward",
    "ipu_print_tensor": "return the tensor from forward",
    "serializedMatMul": "torch.matmul",
    "set_overlap_for_input": "leave the annotation out",
    "set_overlap_for_output": "leave the annotation out",
    "MultiConv": "the convolutions without the scope",
    "NameScope": "leave the scope out",
    "Attribute": "leave the scope out",
    "dynamic_slice": "torch.index_select",
    "dynamic_update": "torch.index_copy",
    "ctc_beam_search_decoder": "a decoder on the host",
    "fps": "a torch implementation",
    "nearest": "torch.cdist(...).argmin",
    "load": "torch.load of a state_dict",
    "ICustomArgParser": "tuples or dicts of tensors",
    "registerCustomArgParser": "tuples or dicts of tensors",
    "registerPreCompileHook": "call the hook before compile()",
    "registerPostCompileHook": "call the hook after compile()",
    "setLogLevel": "logging.getLogger('poptorch::python').setLevel",
    "profiling": "torch.profiler",
    "testing": "torch.testing",
}


def __getattr__(name: str) -> Any:
    if name in _ABSENT:
        raise _absent(f"poptorch.{name}", _ABSENT[name])
    raise AttributeError(f"module 'poptorch' has no attribute {name!r}")


def trainingModel(model: Any, options: Optional[Options] = None, optimizer: Any = None) -> PoplarExecutor:
    """Wrap a model whose forward computes a loss; calling the result trains it."""
    return PoplarExecutor(model, options, training=True, optimizer=optimizer)


def inferenceModel(model: Any, options: Optional[Options] = None) -> PoplarExecutor:
    """Wrap a model; calling the result runs its forward."""
    return PoplarExecutor(model, options, training=False)


def ipuHardwareIsAvailable(num_ipus: int = 1) -> bool:
    """Whether there are IPUs: no."""
    return False


def ipuHardwareVersion() -> int:
    """Version of the IPUs there are: AssertionError, since there are none."""
    raise AssertionError("No IPU hardware available: this is the IPU Model")
