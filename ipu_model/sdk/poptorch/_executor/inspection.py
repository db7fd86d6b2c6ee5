"""The part of an executor that tells about runs: latencies, cycles, anchored tensors, tensor names."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from ipu_model.runtime.device.clock import Clock, latency, perf_counters
from ipu_model.runtime.device.layout import Layout, OutputCollector
from ipu_model.runtime.errors import Error

from .device_weights import DeviceWeights
from .printing import format_model

_GRADIENT = "Gradient___"
_NOTHING: Dict[str, List[List[float]]] = {"input": [[]], "input_complete": [[]], "output": [[]], "output_complete": [[]]}


class Inspection(DeviceWeights):
    """What can be asked of an executor after a run."""

    def __init__(self) -> None:
        super().__init__()
        self._counters = _NOTHING
        self._anchors: Dict[str, OutputCollector] = {}

    def __repr__(self) -> str:
        return format_model(self._user_model)

    # ---- time

    def _remember_times(self, clock: Clock, leaves: Sequence[Any], num_outputs: int) -> None:
        num_inputs = sum(isinstance(leaf, torch.Tensor) for leaf in leaves)
        is_synthetic = self._options._Popart.options.get("syntheticDataMode")
        self._counters = perf_counters(Clock() if is_synthetic else clock, num_inputs, num_outputs)

    def getPerfCounters(self) -> Dict[str, List[List[float]]]:
        """Seconds at which micro batches went in and came out in the last call, by event and by input or output tensor."""
        return self._counters

    def getLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds from the request of the first input to the last output."""
        return latency(self._counters, "input", "output_complete")

    def getHostIpuLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds of the inputs' way to the device."""
        return latency(self._counters, "input", "input_complete")

    def getComputeLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds from the last input's arrival to the first output."""
        return latency(self._counters, "input_complete", "output")

    def getIpuHostLatency(self) -> Tuple[float, float, float]:
        """(min, max, average) seconds of the outputs' way to the host."""
        return latency(self._counters, "output", "output_complete")

    def cycleCount(self) -> int:
        """Cycles of the last run on hardware: there is none, so always an `Error`."""
        if not self._options._Popart.options.get("instrumentWithHardwareCycleCounter"):
            raise Error("Cycle count logging is disabled: set Options.logCycleCount(True), on hardware.")
        raise Error("Please run the model at least once before asking for cycles; only hardware counts them.")

    # ---- tensors

    def getTensorNames(self) -> List[str]:
        """Names that `Options.anchorTensor` takes: parameters, buffers, and gradients of trainable parameters."""
        assert self._executable is not None, "compile the model before asking for its tensor names"
        gradients = [f"{_GRADIENT}{name}" for name in self._trainable_names]
        return [*self._names_of_parameters(), *self._names_of_buffers(), *gradients]

    def getAnchoredTensor(self, short_name: str) -> torch.Tensor:
        """An anchored tensor of the last call, batched like an output of its mode."""
        known = sorted(self._options.anchored_tensors)
        assert short_name in known, f"{short_name!r} is not anchored; anchored: {known}"
        assert short_name in self._anchors, "run the model before asking for an anchored tensor"
        return self._anchors[short_name].join()[0].cpu()

    def _start_anchors(self, layout: Layout) -> Optional[Callable[[int, int, int, Sequence[torch.Tensor]], None]]:
        """Fresh collectors for a call, and what fills them; None without anchors."""
        wanted = self._options.anchored_tensors
        if not wanted:
            return None
        options = self._options
        self._anchors = {}
        for short, (_, mode, period) in wanted.items():
            is_own = mode is not None
            self._anchors[short] = OutputCollector(
                layout, mode if is_own else options.output_mode, period if is_own else options.output_return_period
            )
        find = {short: self._anchored(name) for short, (name, _, _) in wanted.items()}

        def watch(iteration: int, step: int, replica: int, gradients: Sequence[torch.Tensor]) -> None:
            for short, collector in self._anchors.items():
                collector.add(iteration, step, replica, [find[short](replica, gradients).clone()])

        return watch

    def _anchored(self, name: str) -> Callable[[int, Sequence[torch.Tensor]], torch.Tensor]:
        state = self._state
        assert state is not None
        if name in self._names_of_parameters():
            index = self._names_of_parameters().index(name)
            return lambda replica, gradients: state.parameters_of(replica)[index]
        if name in self._names_of_buffers():
            index = self._names_of_buffers().index(name)
            return lambda replica, gradients: state.buffers[replica][index]
        parameter = name[len(_GRADIENT) :]
        if name.startswith(_GRADIENT) and parameter in self._trainable_names:
            index = self._trainable_names.index(parameter)
            return lambda replica, gradients: gradients[index]
        raise Error(f"Cannot anchor {name!r}: the IPU Model knows {', '.join(self.getTensorNames())}.")
