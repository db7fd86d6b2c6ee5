"""The device loop: the code is the definition of what a call means."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Callable, List, Optional, Sequence, TypeVar

import torch

from ..capture import Captured
from ..forward.collectives import Meeting
from ..gradients.loss_scaling import LossScaler
from ..gradients.reduction import Reduction, accumulate, reduce_replicas
from .clock import Clock
from .layout import Layout, OutputCollector
from .random import device_generator
from .state import DeviceState

_T = TypeVar("_T")


@dataclass(frozen=True)
class Watch:
    """Sees what a call does.

    Attributes:
        micro_batch: gets (iteration, step, replica, gradients) of every micro batch.
        update: gets the iteration whose weight update is done.
    """

    micro_batch: Callable[[int, int, int, Sequence[torch.Tensor]], None]
    update: Callable[[int], None]


@dataclass
class Call:
    """What one call brings and takes.

    Attributes:
        micro_batch: gives the leaves of (args, kwargs) of a chunk by its number.
        outputs: collects what the output mode returns.
        clock: times of inputs and outputs.
        watch: None where nobody looks.
    """

    layout: Layout
    micro_batch: Callable[[int], Sequence[Any]]
    outputs: OutputCollector
    clock: Clock = field(default_factory=Clock)
    watch: Optional[Watch] = None


class _Device:
    """Runs single micro batches of a call."""

    def __init__(self, captured: Captured, state: DeviceState, call: Call) -> None:
        self.captured, self.state, self.call = captured, state, call

    def prepare(self) -> List[Sequence[torch.Tensor]]:
        """What follows from the weights as they are now, for each replica."""
        state = self.state
        replicas = len(state.buffers) if state.groups else 1
        prepared = [self.captured.prepare(state.parameters_of(replica), state.buffers[0]) for replica in range(replicas)]
        return prepared if state.groups else prepared * len(state.buffers)

    def replicas(self, task: Callable[[int], _T]) -> List[_T]:
        """`task(replica)` of every replica, one after another; in turns where operations of the graph are between replicas."""
        count = self.call.layout.replication_factor
        if count == 1 or not self.captured.graph.has_collectives:
            return [task(replica) for replica in range(count)]
        return Meeting(count, device_generator(self.state.random.device)).run(task)

    def run(self, prepared: Sequence[torch.Tensor], iteration: int, step: int, replica: int, scale: torch.Tensor) -> Sequence[torch.Tensor]:
        """One micro batch on one replica; gives its gradients."""
        call, state = self.call, self.state
        inputs = call.micro_batch(call.layout.input_chunk(iteration, step, replica))
        if self.captured.graph.has_random_numbers:
            state.random.start(state.first_replica + replica, step)
        call.clock.begin.append(perf_counter())
        result, gradients = self.captured.run(prepared, state.parameters_of(replica), state.buffers[replica], inputs, scale)
        if call.outputs.add(iteration, step, replica, result):
            call.clock.end.append(perf_counter())
        if call.watch is not None:
            call.watch.micro_batch(iteration, step, replica, gradients)
        return gradients


def run_inference(captured: Captured, state: DeviceState, call: Call) -> None:
    """One call of an inference model: for each device iteration, every replica runs its micro batch."""
    device = _Device(captured, state, call)
    unscaled = torch.ones((), device=state.random.device)
    prepared = device.prepare()
    for iteration in range(call.layout.device_iterations):
        device.replicas(lambda replica, i=iteration: device.run(prepared[replica], i, 0, replica, unscaled))
        state.random.advance()


def run_training(
    captured: Captured,
    state: DeviceState,
    call: Call,
    reduction: Reduction,
    scaler: LossScaler,
    update: Callable[[Sequence[torch.Tensor]], None],
) -> None:
    """One call of a training model: D weight updates, each over the micro batches of every replica.

    `update` applies reduced gradients, without loss scale, to the state.
    """
    device = _Device(captured, state, call)
    for iteration in range(call.layout.device_iterations):
        reduced = _gradients(device, iteration, reduction, scaler)
        update(scaler.unscale(reduced))
        if call.watch is not None:
            call.watch.update(iteration)
        state.random.advance()


def _gradients(device: _Device, iteration: int, reduction: Reduction, scaler: LossScaler) -> List[torch.Tensor]:
    """The gradients of one update, over the micro batches of all replicas of all instances."""
    layout, exchange = device.call.layout, device.state.exchange
    prepared, num_steps = device.prepare(), layout.gradient_accumulation

    def steps(replica: int, count: int) -> List[torch.Tensor]:
        gradients: List[torch.Tensor] = []
        for step in range(count):
            fresh = device.run(prepared[replica], iteration, step, replica, scaler.scale)
            gradients = accumulate(gradients, fresh, step, reduction)
        return gradients

    if exchange is None:
        return reduce_replicas(
            device.replicas(lambda replica: steps(replica, num_steps)), num_steps, reduction, device.state.gradient_groups
        )
    last, last_step = layout.replication_factor - 1, num_steps - 1
    totals = [steps(replica, num_steps) for replica in range(last)]
    exchange.begin(totals, steps(last, last_step), last_step, num_steps, reduction)
    device.run(prepared[last], iteration, last_step, last, scaler.scale)
    return exchange.finish()
