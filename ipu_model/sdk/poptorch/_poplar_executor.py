"""The object that `trainingModel` and `inferenceModel` return: PopTorch's names over the parts that do the work."""

from __future__ import annotations

import copy
import datetime
import logging
import os
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

from ipu_model.runtime.device.clock import RunClock
from ipu_model.runtime.device.random import host_random_kept
from ipu_model.runtime.device.state import DeviceMemory
from ipu_model.runtime.errors import Error
from ipu_model.runtime.structures import flatten
from ipu_model.runtime.tracing.workload import Workload

from . import optim
from ._executor.anchors import Anchors
from ._executor.announce import announce, compilation_progress
from ._executor.arguments import ForwardSignature
from ._executor.compile_checks import check_inputs, check_options
from ._executor.compiled import Compiled, check_fits, compile_model, micro_batch
from ._executor.executables import Executable, read_executable, read_exported, write_executable
from ._executor.hooks import OverwriteContextManager as _OverwriteContextManager  # noqa: F401  the name that libraries import
from ._executor.host_module import CallableModel, HostModule
from ._executor.instances import gradient_exchange
from ._executor.optimizer_link import OptimizerLink, adapt_options
from ._executor.printing import module_repr
from ._executor.profile import write_profile
from ._executor.replica_grouping import ParameterGroups, ParameterProxy
from ._executor.run import Inputs, Runner
from ._executor.run_settings import attached_options, executor_options, run_settings, strategy_of
from .enums import ConnectionType
from .options import Options

logger = logging.getLogger("poptorch::python")


class PoplarExecutor:
    """Compiles a model at its first call, keeps its state on the device, and runs it. See `docs/ipu_model.md`.

    Private names that programs of others read are properties: `_executable`, `_model`, `_user_model`, `_options`, `_training`,
    `_optimizer`, `_args_parser`.
    """

    def __init__(
        self,
        model: Any,
        options: Optional[Options],
        training: bool,
        poptorch_version: Optional[str] = None,
        optimizer: Any = None,
        user_model: Any = None,
    ) -> None:
        """A model that runs, and the user's own, which it shares its parts with (default: the same)."""
        announce()
        self._options = executor_options(options, training)
        runs = model if isinstance(model, torch.nn.Module) else CallableModel(model)
        user = runs if user_model is None else user_model
        memory = DeviceMemory(torch.device(os.environ.get("IPU_MODEL_DEVICE", "cpu")))
        self._memory = memory
        self._host = HostModule(runs, user, training, memory, self.destroy)
        self._link: Optional[OptimizerLink] = None
        self._compiled: Optional[Compiled] = None
        self._signature: Optional[ForwardSignature] = None
        if training and optimizer is None and self._host.parameters:
            optimizer = optim.SGD(user.parameters(), lr=0.01)
        if training and optimizer is not None:
            adapt_options(self._options, optimizer)
            self._link = OptimizerLink(optimizer, self._host, memory, run_settings(self._options))
        self._settings = run_settings(self._options)
        self._groups = ParameterGroups(self._settings)
        self._clock, self._anchors = RunClock(), Anchors(self._settings.anchors)
        self._inputs = Inputs(memory, self._settings.is_synthetic)
        if training:
            self._host.wrap()

    # ---- what it is

    @property
    def model(self) -> Any:
        """The user's model of a training executor; of an inference executor the copy that runs."""
        return self._host.user

    @property
    def options(self) -> Options:
        """The frozen copy of the options."""
        return self._options

    @property
    def _user_model(self) -> Any:
        return self._host.user

    @property
    def _model(self) -> Any:
        return self._host.runs

    @property
    def _training(self) -> bool:
        return self._host.is_training

    @property
    def _optimizer(self) -> Any:
        return None if self._link is None else self._link.optimizer

    @property
    def _executable(self) -> Optional[Compiled]:
        return self._compiled

    @property
    def _args_parser(self) -> ForwardSignature:
        """What binds arguments to forward's; set it to None to have forward read again."""
        if self._signature is None:
            self._signature = ForwardSignature(self._host.runs.forward)
        return self._signature

    @_args_parser.setter
    def _args_parser(self, signature: Optional[ForwardSignature]) -> None:
        self._signature = signature

    def __getattr__(self, name: str) -> Any:
        host: Optional[HostModule] = self.__dict__.get("_host")
        if host is None:
            raise AttributeError(f"PoplarExecutor has no attribute {name!r} before its __init__ has run")
        value = getattr(host.user, name)
        return ParameterProxy(self._groups, name, value) if isinstance(value, torch.nn.Parameter) else value

    def __repr__(self) -> str:
        return module_repr(self._host.user)

    # ---- compile and run

    def isCompiled(self) -> bool:
        """Whether the model has been compiled."""
        return self._compiled is not None

    def compilationTime(self) -> datetime.timedelta:
        """How long compiling took."""
        if self._compiled is None:
            raise Error("Please compile the model before asking for its compilationTime.")
        if not self._settings.shows_progress:
            raise Error("Please set showCompilationProgressBar option to True: the time is measured with the bar.")
        return datetime.timedelta(seconds=self._compiled.seconds)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Capture the model for inputs of this (combined batch) shape, and attach."""
        if self._compiled is not None:
            logger.warning("The model is already compiled; call destroy() first to compile for other inputs.")
            return
        compiled = self._captured(self._args_parser.canonical(args, kwargs))
        write_profile(self.ipu_model_workload(*args, **kwargs))
        self._use(compiled)

    def _captured(self, inputs: Tuple[Any, ...]) -> Compiled:
        check_inputs(flatten(inputs)[0])
        arguments, strategy = self._args_parser.describe(*inputs), strategy_of(self._options)
        with compilation_progress(self._settings.shows_progress), host_random_kept():
            check_options(self._settings)
            return compile_model(self._host, self._memory, self._groups, self._settings, inputs, arguments, strategy)

    def _use(self, compiled: Compiled) -> None:
        if self._settings.checks_floating_point:
            compiled.captured.graph.check_floating_point()
        self._compiled, self._groups.is_fixed = compiled, True
        self._inputs.forget()
        if self._options.connection_type == ConnectionType.Always:
            self.attachToDevice()

    def ipu_model_workload(self, *args: Any, **kwargs: Any) -> Workload:
        """What the cost model is asked about, for inputs of combined-batch shape."""
        inputs = micro_batch(self._args_parser.canonical(args, kwargs), self._settings)
        rule = None if self._link is None else self._link.rule
        return Workload(self._host.runs, inputs, self._training, strategy_of(self._options).place, self._settings, rule)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled model on a combined batch; compiles first where needed."""
        self._need_online("run a model on an offline device: useOfflineIpuTarget and ConnectionType.Never only compile")
        inputs = self._args_parser.canonical(args, kwargs)
        compiled = self._ready(args, kwargs)
        compiled.arguments.check(*inputs)
        given = compiled.captured.input_structure.flatten(inputs)
        self._host.catch_up()
        return Runner(self._memory, self._settings, self._link, self._inputs, self._anchors, self._clock).run(compiled, given)

    def _ready(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Compiled:
        """The compiled model on the device: compiled and attached where it is not."""
        if self._compiled is None:
            self.compile(*args, **kwargs)
        compiled = self._need_compiled("calling it")
        if not self._memory.is_attached:
            self.attachToDevice()
        return compiled

    def destroy(self) -> None:
        """Download everything, drop the compiled model, and give the user's module its own class back."""
        if self._compiled is None:
            return
        if self._memory.is_attached:
            self.detachFromDevice()
        if self._link is not None:
            self._link.release()
        self._host.unwrap()
        self._compiled, self._groups.is_fixed = None, False

    def _need_compiled(self, name: str) -> Compiled:
        if self._compiled is None:
            raise Error(f"Model has not been compiled or has been destroyed: call it, or compile(), before {name}.")
        return self._compiled

    def _need_online(self, what: str) -> None:
        assert self._options.connection_type != ConnectionType.Never, f"Trying to {what}"

    # ---- the device

    def isAttachedToDevice(self) -> bool:
        """Whether the device holds the model's state."""
        return self._memory.is_attached

    def attachToDevice(self) -> None:
        """Upload weights, buffers, optimizer state and random state."""
        compiled = self._need_compiled("attachToDevice")
        self._need_online("attach to an offline device")
        exchange = gradient_exchange(compiled, self._settings, self._memory.device)
        self._memory.attach(self._settings, compiled.parameters, compiled.trainable, self._groups.by_name, exchange)
        self._host.upload()
        if self._link is not None:
            self._link.attach(compiled.trainable)

    def detachFromDevice(self) -> None:
        """Download everything and let the device go."""
        self._need_compiled("detachFromDevice")
        if not self._memory.is_attached:
            raise Error("Device is not attached: nothing to detach from.")
        self._host.download_if_stale()
        if self._link is not None:
            self._link.detach()
        self._memory.detach()

    def copyWeightsToDevice(self) -> None:
        """Upload the host's weights and buffers, over whatever the device has."""
        self._need_compiled("copyWeightsToDevice")
        if self._memory.is_attached:
            self._host.upload()

    def copyWeightsToHost(self) -> None:
        """Download the device's weights, and replica 0's buffers, into the user's model."""
        self._need_compiled("copyWeightsToHost")
        if self._memory.is_attached:
            self._host.download()

    def copyWeightsToHostIfNeeded(self) -> bool:
        """Download if the device has trained since the last time; returns whether it did."""
        return self._host.download_if_stale()

    def copyNamedBuffersToDevice(self) -> None:
        """Upload the buffers named in `Options.updatableNamedBuffers`, and nothing else."""
        if not self._settings.updatable_buffers:
            raise Error("copyNamedBuffersToDevice needs the names of the buffers: set Options.updatableNamedBuffers([...]).")
        self._need_compiled("copyNamedBuffersToDevice")
        if self._memory.is_attached:
            self._host.upload_buffers(self._settings.updatable_buffers)

    def load_state_dict(self, state_dict: Dict[str, Any], strict: bool = True) -> Any:
        """Load into the user's model, and upload."""
        result = self._host.user.load_state_dict(state_dict, strict)
        if self._memory.is_attached:
            self._host.upload()
        return result

    @property
    def rng_state(self) -> Optional[List[int]]:
        """`[seed, counter]` of the device's random numbers."""
        self._need_compiled("rng_state")
        return self._memory.random_state

    @rng_state.setter
    def rng_state(self, state: List[int]) -> None:
        self._need_compiled("rng_state")
        self._memory.random_state = state

    def setOptimizer(self, optimizer: Any) -> None:
        """Use an optimizer's present hyper-parameters from the next call on."""
        if self._link is None:
            raise Error("setOptimizer is for training models with parameters: wrap the model with poptorch.trainingModel.")
        if self._compiled is None:
            adapt_options(self._options, optimizer)
            self._settings = run_settings(self._options)
            self._link.use_settings(self._settings)
        self._link.replace(optimizer, self.isCompiled())

    # ---- files

    def save(self, filename: str, export_model: bool = True, save_rng_state: bool = True) -> None:
        """Write the compiled model to a file; `export_model` adds the user's model and optimizer, for `poptorch.load`."""
        compiled = self._need_compiled("save")
        model, optimizer = (self._host.user, self._optimizer) if export_model else (None, None)
        random_state = self._memory.random_state if save_rng_state else None
        state = None if optimizer is None else optimizer.state_dict()
        write_executable(filename, Executable(compiled, self._options, random_state, model, optimizer, state))

    def compileAndExport(self, filename: str, *args: Any, export_model: bool = True, **kwargs: Any) -> None:
        """`compile(*args, **kwargs)` and `save(filename)`."""
        self.compile(*args, **kwargs)
        self.save(filename, export_model)

    def loadExecutable(self, filename: str) -> None:
        """Take the compiled model from a file of the same model instead of compiling.

        Raises:
            Error: not such a file, another version of torch, or a model with other parameters.
        """
        self._take(read_executable(filename), filename)

    def _take(self, executable: Executable, filename: str) -> None:
        check_fits(executable.compiled, self._host, filename)
        self._memory.random_state = executable.random_state
        self._use(executable.compiled)

    # ---- what can be asked after a run

    def getPerfCounters(self) -> Dict[str, List[List[float]]]:
        """Seconds at which micro batches went in and came out in the last call, by event and by input or output tensor."""
        return self._clock.counters

    def getLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds from the request of the first input to the last output."""
        return self._clock.latency("input", "output_complete")

    def getHostIpuLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds of the inputs' way to the device."""
        return self._clock.latency("input", "input_complete")

    def getComputeLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds from the last input's arrival to the first output."""
        return self._clock.latency("input_complete", "output")

    def getIpuHostLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds of the outputs' way to the host."""
        return self._clock.latency("output", "output_complete")

    def cycleCount(self) -> int:
        """Cycles of the last run on hardware: there is none, so always an `Error`."""
        if not self._settings.counts_cycles:
            raise Error("Cycle count logging is disabled: set Options.logCycleCount(True), on hardware.")
        raise Error("Please run the model at least once before asking for cycles; only hardware counts them.")

    def getTensorNames(self) -> List[str]:
        """Names that `Options.anchorTensor` takes: parameters, buffers, gradients of trainable parameters, and these after an update."""
        assert self._compiled is not None, "compile the model before asking for its tensor names"
        return self._compiled.tensor_names

    def getAnchoredTensor(self, short_name: str) -> torch.Tensor:
        """An anchored tensor of the last call, batched like an output of its mode."""
        return self._anchors.tensor(short_name)


def training_executor(model: Any, options: Optional[Options], optimizer: Any) -> PoplarExecutor:
    """A module, a callable or an executor as a training model; a shallow copy runs, so that its own attributes are fixed now."""
    user = _user_module(model)
    return PoplarExecutor(copy.copy(user), options, True, optimizer=optimizer, user_model=user)


def inference_executor(model: Any, options: Optional[Options]) -> PoplarExecutor:
    """A module, a callable or an executor as an inference model, which follows the training model of the same module."""
    user = _user_module(model)
    executor = PoplarExecutor(copy.copy(user), options, False)
    if isinstance(model, PoplarExecutor) and not model._training:
        executor._host.follow_trainer_of(model._host)
    else:
        executor._host.follow(user)
    return executor


def _user_module(model: Any) -> torch.nn.Module:
    user = model.model if isinstance(model, PoplarExecutor) else model
    return user if isinstance(user, torch.nn.Module) else CallableModel(user)


def load(filename: str, edit_opts_fn: Optional[Callable[[Options], None]] = None) -> PoplarExecutor:
    """An executor from a file saved with its model; `edit_opts_fn(options)` may change the options first.

    Raises:
        AssertionError: saved without the model (use `loadExecutable` on a wrapped model), or by another version.
        Error: not such a file.
    """
    stored = read_exported(filename)
    options = attached_options(stored.options)
    if edit_opts_fn is not None:
        edit_opts_fn(options)
    is_training = stored.compiled.is_training
    executor = training_executor(stored.model, options, stored.optimizer) if is_training else inference_executor(stored.model, options)
    stored.restore_optimizer()
    executor._take(stored, filename)
    return executor
