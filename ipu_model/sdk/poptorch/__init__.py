"""PopTorch's Python API on the IPU Model."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.util
import io
import os
from typing import Any, Optional

from ipu_model.runtime import torchrun as _torchrun
from ipu_model.runtime.errors import (
    Error as Error,
    RecoverableError as RecoverableError,
    UnrecoverableError as UnrecoverableError,
    absent as _absent,
)

from . import (
    _args_parser as _args_parser,
    _hardware as _hardware,
    _impl as _impl,
    _logging as _logging,
    _utils as _utils,
    enums as enums,
    ops as ops,
    optim as optim,
    options as options,
    poptorch_core as poptorch_core,
    profiling as profiling,
    testing as testing,
)
from ._data.accessor import AsynchronousDataAccessor as AsynchronousDataAccessor
from ._data.loader import DataLoader as DataLoader
from ._executor.arguments import ICustomArgParser as ICustomArgParser, registerCustomArgParser as registerCustomArgParser
from ._executor.hooks import registerPostCompileHook as registerPostCompileHook, registerPreCompileHook as registerPreCompileHook
from ._executor.printing import module_repr as module_repr, print as print  # PopTorch's own name: shows the blocks of modules
from ._forward import torch_operators as _torch_operators  # noqa: F401  registers torch.ops.poptorch
from ._logging import logger as logger, setLogLevel as setLogLevel
from ._options import former as _former
from ._options.former import Policy as Policy, autocast as autocast
from ._placement.blocks import PipelinedExecution as PipelinedExecution, ShardedExecution as ShardedExecution, Stage as Stage
from ._placement.phases import (
    ParallelPhasedExecution as ParallelPhasedExecution,
    Phase as Phase,
    SerialPhasedExecution as SerialPhasedExecution,
)
from ._poplar_executor import (
    PoplarExecutor as PoplarExecutor,
    inference_executor as _inference_executor,
    load as load,
    training_executor as _training_executor,
)
from .enums import *  # noqa: F403  every enum is a top-level name of PopTorch
from .ops import (
    CPU as CPU,
    Attribute as Attribute,
    BeginBlock as BeginBlock,
    Block as Block,
    BlockFunction as BlockFunction,
    MultiConv as MultiConv,
    NameScope as NameScope,
    cond as cond,
    ctc_beam_search_decoder as ctc_beam_search_decoder,
    custom_op as custom_op,
    dynamic_slice as dynamic_slice,
    dynamic_update as dynamic_update,
    for_loop as for_loop,
    fps as fps,
    identity_loss as identity_loss,
    ipu_print_tensor as ipu_print_tensor,
    isRunningOnIpu as isRunningOnIpu,
    nearest as nearest,
    nop as nop,
    recomputationCheckpoint as recomputationCheckpoint,
    removeBlocks as removeBlocks,
    serializedMatMul as serializedMatMul,
    set_available_memory as set_available_memory,
    set_overlap_for_input as set_overlap_for_input,
    set_overlap_for_output as set_overlap_for_output,
)
from .options import ConfigFileError as ConfigFileError, Options as Options, TensorLocationSettings as TensorLocationSettings

__version__ = "3.4.0"  # the release whose behaviour is modelled

_ABSENT = {"accessAttributes": "the attributes of the poptorch.Attribute object"}


def __getattr__(name: str) -> Any:
    if name == "AnchorMode":
        _former.warn_renamed("poptorch.AnchorMode", "poptorch.OutputMode")
        return enums.OutputMode
    if name in _ABSENT:
        raise _absent(f"poptorch.{name}", _ABSENT[name])
    raise AttributeError(f"module 'poptorch' has no attribute {name!r}")


def trainingModel(model: Any, options: Optional[Options] = None, optimizer: Any = None) -> PoplarExecutor:
    """Wrap a model whose forward computes a loss; calling the result trains it."""
    return _training_executor(model, options, optimizer)


def inferenceModel(model: Any, options: Optional[Options] = None) -> PoplarExecutor:
    """Wrap a model; calling the result runs its forward."""
    return _inference_executor(model, options)


def ipuHardwareIsAvailable(num_ipus: int = 1) -> bool:
    """Whether there are so many IPUs: no, unless hardware is pretended (see `_hardware`)."""
    return _hardware.is_available(num_ipus)


def ipuHardwareVersion() -> int:
    """Version of the IPUs, 2, or 21 for Bow; AssertionError where none are pretended."""
    version = _hardware.version()
    assert version, f"No IPU hardware available: this is the IPU Model; {_hardware.VARIABLE}=1 pretends that there is"
    return version


def createPoptorchError(message: str) -> Error:
    """The error that PopTorch's Python code raises."""
    return Error(message)


os.environ.setdefault("RDMAV_FORK_SAFE", "1")
_logging.set_up()
_torchrun.adopt()
if not faulthandler.is_enabled():
    with contextlib.suppress(io.UnsupportedOperation, AttributeError, RuntimeError):  # stderr without a file
        faulthandler.enable()
if importlib.util.find_spec("poptorch_geometric") is not None:
    importlib.import_module("poptorch_geometric.types").registerCustomArgParsers()
