"""The device loop: the code is the definition of what a call means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, List, Sequence

import torch

from .batching import Layout, OutputCollector
from .capture import Captured
from .collectives import Reduction, accumulate, reduce_replicas
from .loss_scaling import LossScaler
from .random import DeviceRandom
from .update import OptimizerState

MicroBatch = Callable[[int], Sequence[Any]]


@dataclass
class DeviceState:
    """What lives on the device between calls.

    `buffers` has one list for each replica, since each updates its own running statistics; parameters are equal on all replicas and
    kept once.
    """

    parameters: List[torch.Tensor]
    buffers: List[List[torch.Tensor]]
    random: DeviceRandom
    optimizer: OptimizerState = field(default_factory=OptimizerState)


def run_inference(captured: Captured, state: DeviceState, micro_batch: MicroBatch, layout: Layout, outputs: OutputCollector) -> None:
    """One call of an inference model: for each device iteration, every replica runs its micro batch."""
    unscaled = torch.ones((), device=_device(state))
    prepared = captured.prepare(state.parameters, state.buffers[0])
    for iteration in range(layout.device_iterations):
        for replica in range(layout.replication_factor):
            state.random.start(replica, step=0)
            inputs = micro_batch(layout.input_chunk(iteration, 0, replica))
            result, _ = captured.run(prepared, state.parameters, state.buffers[replica], inputs, unscaled)
            outputs.add(iteration, 0, replica, result)
        state.random.advance()


def run_training(
    captured: Captured,
    state: DeviceState,
    micro_batch: MicroBatch,
    layout: Layout,
    outputs: OutputCollector,
    reduction: Reduction,
    scaler: LossScaler,
    update: Callable[[Sequence[torch.Tensor]], None],
) -> None:
    """One call of a training model: D weight updates, each over the micro batches of every replica.

    Args:
        micro_batch: gives the leaves of (args, kwargs) of a chunk by its number.
        update: applies reduced gradients, without loss scale, to the state.
    """
    for iteration in range(layout.device_iterations):
        prepared = captured.prepare(state.parameters, state.buffers[0])
        totals: List[List[torch.Tensor]] = []
        for replica in range(layout.replication_factor):
            gradients: List[torch.Tensor] = []
            for step in range(layout.gradient_accumulation):
                state.random.start(replica, step)
                inputs = micro_batch(layout.input_chunk(iteration, step, replica))
                result, fresh = captured.run(prepared, state.parameters, state.buffers[replica], inputs, scaler.scale)
                gradients = accumulate(gradients, fresh, step, reduction)
                outputs.add(iteration, step, replica, result)
            totals.append(gradients)
        reduced = reduce_replicas(totals, layout.gradient_accumulation, reduction)
        update(scaler.unscale(reduced))
        state.random.advance()


def _device(state: DeviceState) -> torch.device:
    tensors = state.parameters or (state.buffers[0] if state.buffers else [])
    return tensors[0].device if tensors else torch.device("cpu")
