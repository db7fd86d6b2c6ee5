"""The object that `trainingModel` and `inferenceModel` return."""

from __future__ import annotations

import copy
import datetime
import functools
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch.utils import _pytree as pytree

from ipu_model.program.placement import Placement
from ipu_model.runtime.batching import Layout, OutputCollector, split, synthetic_like
from ipu_model.runtime.capture import Captured, bind_arguments, capture
from ipu_model.runtime.collectives import Reduction
from ipu_model.runtime.errors import Error, absent
from ipu_model.runtime.executor import run_inference, run_training
from ipu_model.runtime.random import host_random_kept
from ipu_model.runtime.update import apply_update

from . import _optimizer_link as link
from ._announce import announce, compilation_progress
from ._arguments import check_arguments
from ._device_weights import DeviceWeights
from ._wrapping import unwrap, wrap
from .enums import CommGroupType, ConnectionType, MeanReductionStrategy, OutputMode, ReductionType
from .options import Options

_ABSENT = {
    "getLatency": "time the call",
    "getComputeLatency": "time the call",
    "getHostIpuLatency": "time the call",
    "getIpuHostLatency": "time the call",
    "getPerfCounters": "time the call",
    "cycleCount": "no cycles are counted without hardware",
    "save": "torch.save of the model's state_dict()",
    "compileAndExport": "compile",
    "loadExecutable": "compile",
    "getAnchoredTensor": "return the tensor from forward",
    "getTensorNames": "named_parameters() and named_buffers()",
    "copyNamedBuffersToDevice": "copyWeightsToDevice",
}


class _CallableModel(torch.nn.Module):
    """A plain callable as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign,assignment]


class PoplarExecutor(DeviceWeights):
    """Compiles a model at its first call, keeps its state on the device, and runs it. See `poptorch_api` sections 3 and 4."""

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
            wrap(self._user_model, self)
        self._synthetic_inputs: Optional[List[Any]] = None
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
        if name in _ABSENT:
            raise absent(f"PoplarExecutor.{name}", _ABSENT[name])
        if name.startswith("_"):
            raise AttributeError(f"PoplarExecutor has no attribute {name!r}")
        return getattr(self._user_model, name)

    def __repr__(self) -> str:
        return repr(self._user_model)

    def isCompiled(self) -> bool:
        """Whether the model has been compiled."""
        return self._executable is not None

    def compilationTime(self) -> datetime.timedelta:
        """How long compiling took."""
        self._need_compiled("compilationTime")
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
            link.logger.warning("The model is already compiled; call destroy() first to compile for other inputs.")
            return
        bind_arguments(self._user_model.forward, args, kwargs)
        start = time.perf_counter()
        with compilation_progress(self._options._show_compilation_progress_bar), host_random_kept():
            self._compile((args, kwargs))
        self._compilation_time = datetime.timedelta(seconds=time.perf_counter() - start)
        if self._options.connection_type == ConnectionType.Always:
            self.attachToDevice()

    def _compile(self, inputs: Tuple[Tuple[Any, ...], Dict[str, Any]]) -> None:
        layout = self._layout
        device_inputs = pytree.tree_map(self._to_device, inputs)
        first = pytree.tree_map(lambda x: split(x, layout)[0] if isinstance(x, torch.Tensor) else x, device_inputs)
        parameters = {name: self._to_device(p.detach()) for name, p in self._model.named_parameters()}
        buffers = {name: self._to_device(b.detach()) for name, b in self._model.named_buffers()}
        trainable = [self._training and p.requires_grad for p in self._model.parameters()]
        with torch.no_grad():
            captured = capture(self._model, parameters, trainable, buffers, first)
        self._placement = self._place(captured)
        self._trainable_names = [name for name, wanted in zip(parameters, trainable) if wanted]
        self._inputs_at_compile = inputs
        self._executable = captured

    def _place(self, captured: Captured) -> Placement:
        strategy = self._options._execution_strategy
        placement = strategy.place(list(captured.block_starts))
        layout = self._layout
        try:
            placement.num_ipus(layout.replication_factor, self._options.auto_round_num_ipus)
            if strategy.has_pipeline:
                placement.check_pipeline_depth(layout.gradient_accumulation, layout.device_iterations, self._training)
        except ValueError as error:
            raise Error(str(error), type="poptorch_cpp_error") from error
        return placement

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled model on a combined batch; compiles first where needed."""
        assert self._options.connection_type != ConnectionType.Never, (
            "Trying to run a model on an offline device: useOfflineIpuTarget and ConnectionType.Never only compile"
        )
        bind_arguments(self._user_model.forward, args, kwargs)
        if self._executable is None:
            self.compile(*args, **kwargs)
        if not self._is_attached:
            self.attachToDevice()
        check_arguments(self._inputs_at_compile, (args, kwargs))
        if not self._training:
            self._follow_trainer()
        with torch.no_grad(), host_random_kept():
            return self._run((args, kwargs))

    def _run(self, inputs: Tuple[Tuple[Any, ...], Dict[str, Any]]) -> Any:
        assert self._executable is not None and self._state is not None
        layout = self._layout
        leaves = self._inputs_on_device(inputs)
        chunks = [split(leaf, layout) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

        def micro_batch(chunk: int) -> Any:
            return [leaf[chunk] if isinstance(leaf, list) else leaf for leaf in chunks]

        outputs = OutputCollector(layout, self._options.output_mode, self._options.output_return_period)
        if self._training:
            reduction = self._reduction()
            run_training(self._executable, self._state, micro_batch, layout, outputs, reduction, self._scaler, self._update)
            self._is_host_stale = True
        else:
            run_inference(self._executable, self._state, micro_batch, layout, outputs)
        self._check_finite(results := [result.cpu() for result in outputs.join()])
        for result in results:
            result.backward = _no_backward  # type: ignore[method-assign]
        return self._executable.restore_outputs(results)

    def _inputs_on_device(self, inputs: Tuple[Tuple[Any, ...], Dict[str, Any]]) -> List[Any]:
        """The leaves of the arguments; with synthetic data those made at the first call, whatever comes from the host."""
        if not self._options._Popart.options.get("syntheticDataMode"):
            return [self._to_device(leaf) for leaf in pytree.tree_flatten(inputs)[0]]
        if self._synthetic_inputs is None:
            self._synthetic_inputs = [synthetic_like(self._to_device(leaf)) for leaf in pytree.tree_flatten(inputs)[0]]
        return self._synthetic_inputs

    def _check_finite(self, results: List[torch.Tensor]) -> None:
        if self._options._Popart.options.get("enableFloatingPointChecks"):
            for result in results:
                if result.is_floating_point() and not bool(torch.isfinite(result).all()):
                    raise Error("A result is not finite (floating-point exceptions are enabled).", type="poplar_runtime_error")

    def _reduction(self) -> Reduction:
        training = self._options.Training
        return Reduction(
            is_mean=training.accumulation_and_replication_reduction_type == ReductionType.Mean,
            is_running=training.meanAccumulationAndReplicationReductionStrategy == MeanReductionStrategy.Running,
            accumulator_dtype=getattr(self._optimizer, "accum_type", torch.float32),
        )

    def _update(self, gradients: Any) -> None:
        assert self._state is not None
        wanted = set(self._trainable_names)
        weights = [p for name, p in zip(self._parameter_names, self._state.parameters) if name in wanted]
        if weights:
            apply_update(self._rule, self._trainable_names, weights, gradients, self._state.optimizer)

    # ---- optimizer

    def setOptimizer(self, optimizer: Any) -> None:
        """Use an optimizer's present hyper-parameters from the next call on."""
        link.optimizer_kind(optimizer)
        previous, self._optimizer = self._optimizer, optimizer
        if self._is_attached:
            self._rule = link.refreshed_rule(self, self._rule, previous)

    def destroy(self) -> None:
        """Download everything, drop the compiled model, and give the user's module its own class back."""
        if self._is_attached:
            self.detachFromDevice()
        if self._executable is not None and self._training:
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
