"""One call of a compiled model."""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import dataclass
from typing import Any, ContextManager, List, Optional

import torch

from ipu_model.runtime.device.clock import Clock, RunClock
from ipu_model.runtime.device.layout import OutputCollector, split, synthetic_like
from ipu_model.runtime.device.loop import Call, run_inference, run_training
from ipu_model.runtime.device.random import host_random_kept
from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.device.state import DeviceMemory
from ipu_model.runtime.errors import Error
from ipu_model.runtime.gradients.loss_scaling import LossScaler
from ipu_model.runtime.gradients.reduction import Reduction

from .anchors import Anchors
from .compiled import Compiled
from .optimizer_link import OptimizerLink

logger = logging.getLogger("poptorch::python")


class Inputs:
    """The arguments of calls on their way to the device."""

    def __init__(self, memory: DeviceMemory, is_synthetic: bool) -> None:
        self._memory, self._is_synthetic = memory, is_synthetic
        self._synthetic: Optional[List[Any]] = None
        self._has_warned = False

    def on_device(self, given: List[Any]) -> List[Any]:
        """The leaves of the arguments; with synthetic data those made at the first call, whatever comes from the host."""
        if self._is_synthetic:
            if self._synthetic is None:
                self._synthetic = [synthetic_like(self._memory.take(leaf)) for leaf in given]
            return self._synthetic
        if not self._has_warned and any(isinstance(leaf, torch.Tensor) and not leaf.is_contiguous() for leaf in given):
            self._has_warned = True
            logger.warning("Inputs that are not contiguous are copied before every call: call .contiguous() on them once.")
        return [self._memory.take(leaf) for leaf in given]

    def forget(self) -> None:
        """Make synthetic data anew: the next call may have other shapes."""
        self._synthetic = None


@dataclass(frozen=True)
class Runner:
    """What a call runs on, beside the compiled model."""

    memory: DeviceMemory
    settings: RunSettings
    link: Optional[OptimizerLink]
    inputs: Inputs
    anchors: Anchors
    clock: RunClock

    def run(self, compiled: Compiled, given: List[Any]) -> Any:
        """One call with the leaves of its arguments: D iterations of the device loop; gives what forward returns."""
        settings, state = self.settings, self.memory.state
        leaves = self.inputs.on_device(given)
        chunks = [split(leaf, settings.layout) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

        def micro_batch(chunk: int) -> Any:
            return [leaf[chunk] if isinstance(leaf, list) else leaf for leaf in chunks]

        outputs = OutputCollector(settings.layout, settings.outputs.mode, settings.outputs.period)
        watch = self.anchors.start(settings.layout, compiled, state)
        call = Call(settings.layout, micro_batch, outputs, watch=watch)
        with torch.no_grad(), self._random_kept(compiled):
            if compiled.is_training:
                self._train(compiled, call)
            else:
                run_inference(compiled.captured, state, call)
            results = [result.cpu() for result in outputs.join()]
            _return_written(compiled, given, leaves)
        num_inputs = sum(isinstance(leaf, torch.Tensor) for leaf in leaves)
        self.clock.remember(Clock() if settings.is_synthetic else call.clock, num_inputs, len(results))
        for result in results:
            result.backward = _no_backward  # type: ignore[method-assign]
        return compiled.captured.restore_outputs(results)

    def _train(self, compiled: Compiled, call: Call) -> None:
        """D updates; a model without parameters has nothing to update."""
        said, memory = self.settings, self.memory
        if self.link is None:
            reduction = Reduction(said.is_mean_reduction, said.is_running_mean, torch.float32)
            scaler = LossScaler(1.0, is_automatic=False, device=memory.device)
            run_training(compiled.captured, memory.state, call, reduction, scaler, lambda gradients: None)
        else:
            self.link.before_run()
            run_training(compiled.captured, memory.state, call, self.link.reduction(), self.link.scaler, self.link.update)
        memory.is_stale = True

    def _random_kept(self, compiled: Compiled) -> ContextManager[None]:
        draws = compiled.captured.graph.has_random_numbers or (self.link is not None and self.link.draws_random_numbers)
        return host_random_kept(self.memory.device) if draws else contextlib.nullcontext()


def _return_written(compiled: Compiled, given: List[Any], leaves: List[Any]) -> None:
    """Copy inputs that forward changed in place back to the caller's tensors."""
    for index in compiled.captured.written_inputs:
        if isinstance(given[index], torch.Tensor) and given[index].data_ptr() != leaves[index].data_ptr():
            given[index].data.copy_(leaves[index])


@functools.wraps(torch.Tensor.backward)
def _no_backward(*args: Any, **kwargs: Any) -> None:
    raise Error("backward() cannot be called on the output of an executor: the backward pass has run on the device.")
