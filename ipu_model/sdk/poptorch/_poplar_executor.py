"""The object that `trainingModel` and `inferenceModel` return."""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import logging
import os
import time
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple

import torch

from ipu_model.program.placement import Placement
from ipu_model.runtime.capture import Captured, Target, capture
from ipu_model.runtime.device.layout import Layout, OutputCollector, split, synthetic_like
from ipu_model.runtime.device.loop import Call, run_inference, run_training
from ipu_model.runtime.device.random import host_random_kept
from ipu_model.runtime.device.rules import apply_update
from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward.recording import Recording
from ipu_model.runtime.gradients.reduction import Reduction
from ipu_model.runtime.graph.cache import TraceCache
from ipu_model.runtime.structures import flatten
from ipu_model.runtime.tracing.workload import Workload

from ._executor import compile_checks as checks, optimizer_link as link
from ._executor.announce import announce, compilation_progress
from ._executor.arguments import ForwardSignature, check_arguments, describe
from ._executor.executables import Executables
from ._executor.hooks import compile_hooks
from ._executor.inspection import Inspection
from ._executor.profile import write_profile
from ._executor.replica_grouping import ParameterProxy
from ._executor.run_settings import run_settings
from ._executor.wrapping import unwrap, wrap
from .enums import CommGroupType, ConnectionType, MeanReductionStrategy, OutputMode, ReductionType
from .options import Options

logger = logging.getLogger("poptorch::python")


class _CallableModel(torch.nn.Module):
    """A plain callable as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign,assignment]


class PoplarExecutor(Inspection, Executables):
    """Compiles a model at its first call, keeps its state on the device, and runs it. See `docs/ipu_model.md`."""

    def __init__(self, model: Any, options: Optional[Options], training: bool, optimizer: Any = None) -> None:
        super().__init__()
        announce()
        if options is not None and not isinstance(options, Options):
            raise Error(f"options must be a poptorch.Options, got {options!r}.")
        user_model = model._user_model if isinstance(model, PoplarExecutor) else model
        options = options if options is not None else Options()
        options._freeze()
        self._options = _executor_options(options, training)
        self._training = training
        self._user_model = user_model if isinstance(user_model, torch.nn.Module) else _CallableModel(user_model)
        self._model = copy.copy(self._user_model)  # the copy's own attributes are fixed now, its parts are shared
        if training:
            parameters = list(self._user_model.parameters())
            self._optimizer = optimizer or (torch.optim.SGD(parameters, lr=0.01) if parameters else None)
            if self._optimizer is not None:
                link.optimizer_kind(self._optimizer)
                link.choose_reduction_strategy(self)
            wrap(self._user_model, self)
        self._signature = ForwardSignature(self._user_model.forward)
        self._synthetic_inputs: Optional[List[Any]] = None
        self._warned_contiguous = False
        self._device = torch.device(os.environ.get("IPU_MODEL_DEVICE", "cpu"))

    # ---- what it is

    @property
    def model(self) -> Any:
        """The user's model."""
        return self._user_model

    @property
    def options(self) -> Options:
        """The frozen copy of the options."""
        return self._options

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"PoplarExecutor has no attribute {name!r}")
        value = getattr(self._user_model, name)
        return ParameterProxy(self, name, value) if isinstance(value, torch.nn.Parameter) else value

    def isCompiled(self) -> bool:
        """Whether the model has been compiled."""
        return self._executable is not None

    def compilationTime(self) -> datetime.timedelta:
        """How long compiling took."""
        if self._executable is None:
            raise Error("Please compile the model before asking for its compilationTime.")
        if not self._options._show_compilation_progress_bar:
            raise Error("Please set showCompilationProgressBar option to True: the time is measured with the bar.")
        return self._compilation_time

    # ---- compile and run

    @property
    def _layout(self) -> Layout:
        options = self._options
        return Layout(
            options.device_iterations,
            options.Training.gradient_accumulation,
            options.replication_factor,
            options.input_group_size,
            options.input_cgt == CommGroupType.Orthogonal,
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Capture the model for inputs of this (combined batch) shape, and attach."""
        if self._executable is not None:
            logger.warning("The model is already compiled; call destroy() first to compile for other inputs.")
            return
        names = self._signature.bind(args, kwargs)
        checks.check_inputs(flatten((args, kwargs))[0])
        self._inputs_at_compile = describe(names, args, kwargs)
        start = time.perf_counter()
        with compilation_progress(self._options._show_compilation_progress_bar), host_random_kept():
            self._compile(args, kwargs)
        write_profile(self.ipu_model_workload(*args, **kwargs))
        self._compilation_time = datetime.timedelta(seconds=time.perf_counter() - start)
        if self._options.connection_type == ConnectionType.Always:
            self.attachToDevice()

    def _compile(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        checks.check_options(self._options)
        layout = self._layout
        leaves, structure = flatten((args, kwargs))
        first = [split(self._to_device(leaf), layout)[0] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        parameters = self._parameters_for_capture()
        buffers = {name: self._to_device(b.detach()) for name, b in self._model.named_buffers()}
        trainable = [self._training and p.requires_grad for p in self._model.parameters()]
        popart = self._options._Popart.options
        cache = TraceCache(popart["cachePath"]) if popart.get("enableEngineCaching") else None
        target = Target(self._training, bool(popart.get("enableStochasticRounding")), cache)
        with torch.no_grad(), compile_hooks():
            captured, record = capture(self._model, parameters, trainable, buffers, structure.unflatten(first), target)
        self._placement = self._place(captured)
        checks.check_captured(self._options, self._model, captured, record)
        self._trainable_names = [name for name, wanted in zip(parameters, trainable) if wanted]
        self._set_executable(captured, record)

    def _set_executable(self, captured: Captured, record: Optional[Recording]) -> None:
        if self._options._Popart.options.get("enableFloatingPointChecks"):
            captured.graph.check_floating_point()
        self._record = record
        self._executable = captured

    def _place(self, captured: Captured) -> Placement:
        strategy = self._options._execution_strategy
        placement = strategy.place(list(captured.block_starts))
        layout = self._layout
        try:
            reserved = placement.num_ipus(layout.replication_factor, self._options.auto_round_num_ipus)
            if strategy.has_pipeline:
                placement.check_pipeline_depth(layout.gradient_accumulation, layout.device_iterations, self._training)
        except ValueError as error:
            raise Error(str(error), type="poptorch_cpp_error") from error
        checks.warn_of_rounding(reserved, placement.ipus_per_replica * layout.replication_factor)
        return placement

    def ipu_model_workload(self, *args: Any, **kwargs: Any) -> Workload:
        """What the cost model is asked about, for inputs of combined-batch shape."""
        settings = run_settings(self._options)
        leaves, structure = flatten((args, kwargs))
        first = [split(leaf, settings.layout)[0] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        place = self._options._execution_strategy.place
        rule = link.rule_of(self) if self._training and self._optimizer is not None else None
        return Workload(self._model, structure.unflatten(first), self._training, place, settings, rule)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled model on a combined batch; compiles first where needed."""
        assert self._options.connection_type != ConnectionType.Never, (
            "Trying to run a model on an offline device: useOfflineIpuTarget and ConnectionType.Never only compile"
        )
        if self._executable is None:
            self.compile(*args, **kwargs)
        if not self._is_attached:
            self.attachToDevice()
        self._signature.bind(args, kwargs)
        check_arguments(self._inputs_at_compile, args, kwargs)
        if not self._training:
            self._follow_trainer()
        assert self._executable is not None
        with torch.no_grad(), self._random_kept():
            return self._run(self._executable.input_structure.flatten((args, kwargs)))

    def _random_kept(self) -> ContextManager[None]:
        assert self._executable is not None
        draws = self._executable.graph.has_random_numbers or (self._training and self._optimizer is not None and self._rule.is_stochastic)
        return host_random_kept(self._device) if draws else contextlib.nullcontext()

    def _run(self, given: List[Any]) -> Any:
        assert self._executable is not None and self._state is not None
        layout = self._layout
        leaves = self._inputs_on_device(given)
        chunks = [split(leaf, layout) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

        def micro_batch(chunk: int) -> Any:
            return [leaf[chunk] if isinstance(leaf, list) else leaf for leaf in chunks]

        outputs = OutputCollector(layout, self._options.output_mode, self._options.output_return_period)
        call = Call(layout, micro_batch, outputs, watch=self._start_anchors(layout))
        if self._training:
            run_training(self._executable, self._state, call, self._reduction(), self._scaler, self._update)
            self._is_host_stale = True
        else:
            run_inference(self._executable, self._state, call)
        results = [result.cpu() for result in outputs.join()]
        self._remember_times(call.clock, leaves, len(results))
        self._return_written_inputs(given, leaves)
        for result in results:
            result.backward = _no_backward  # type: ignore[method-assign]
        return self._executable.restore_outputs(results)

    def _inputs_on_device(self, given: List[Any]) -> List[Any]:
        """The leaves of the arguments; with synthetic data those made at the first call, whatever comes from the host."""
        if self._options._Popart.options.get("syntheticDataMode"):
            if self._synthetic_inputs is None:
                self._synthetic_inputs = [synthetic_like(self._to_device(leaf)) for leaf in given]
            return self._synthetic_inputs
        if not self._warned_contiguous and any(isinstance(leaf, torch.Tensor) and not leaf.is_contiguous() for leaf in given):
            self._warned_contiguous = True
            logger.warning("Inputs that are not contiguous are copied before every call: call .contiguous() on them once.")
        return [self._to_device(leaf) for leaf in given]

    def _return_written_inputs(self, given: List[Any], leaves: List[Any]) -> None:
        """Copy inputs that forward changed in place back to the caller's tensors."""
        assert self._executable is not None
        for index in self._executable.written_inputs:
            if isinstance(given[index], torch.Tensor) and given[index].data_ptr() != leaves[index].data_ptr():
                given[index].data.copy_(leaves[index])

    def _reduction(self) -> Reduction:
        training = self._options.Training
        return Reduction(
            is_mean=training.accumulation_and_replication_reduction_type == ReductionType.Mean,
            is_running=training.meanAccumulationAndReplicationReductionStrategy == MeanReductionStrategy.Running,
            accumulator_dtype=getattr(self._optimizer, "accum_type", torch.float32),
        )

    def _update(self, gradients: Any) -> None:
        assert self._state is not None
        if self._trainable_names:
            weights = [self._state.parameters[index] for index in self._trainable_indices]
            if self._rule.is_stochastic:
                self._state.random.start_update()
            apply_update(self._rule, self._trainable_names, weights, gradients, self._state.optimizer)

    # ---- optimizer

    def setOptimizer(self, optimizer: Any) -> None:
        """Use an optimizer's present hyper-parameters from the next call on."""
        link.check_replacement(self, optimizer)
        previous, self._optimizer = self._optimizer, optimizer
        if self._is_attached:
            self._rule = link.refreshed_rule(self, self._rule, previous)
            self._complete_optimizer_state()

    def destroy(self) -> None:
        """Download everything, drop the compiled model, and give the user's module its own class back."""
        if self._executable is None:
            return
        if self._is_attached:
            self.detachFromDevice()
        if self._training:
            unwrap(self._user_model)
        self._executable = None


def _executor_options(options: Options, training: bool) -> Options:
    """The executor's own copy, with the default output mode chosen; `Error` for what inference refuses."""
    own = options.clone()
    if own.defaultOutputMode():
        own.outputMode(OutputMode.Final if training else OutputMode.All)
    if not training and own.Training.gradient_accumulation != 1:
        raise Error(
            f"You must set poptorch.Options().Training.gradientAccumulation to 1 for inference, it is {own.Training.gradient_accumulation}."
        )
    own._freeze()
    return own


@functools.wraps(torch.Tensor.backward)
def _no_backward(*args: Any, **kwargs: Any) -> None:
    raise Error("backward() cannot be called on the output of an executor: the backward pass has run on the device.")
