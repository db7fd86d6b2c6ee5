"""Gradients of several instances: reduced in few large buckets, each as soon as the last backward pass of an update has made it."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import fx

from ..graph.aliases import written_in_place
from ..graph.hoisting import SplitGraph
from ..instances import Instances
from .reduction import Reduction, accumulate

BUCKET_ELEMENTS = 2**21  # of float32: at least 8 MiB travel between instances at a time

Announce = Callable[..., None]


@dataclass
class _Update:
    """One update's gradients on their way.

    Attributes:
        totals: accumulators of this instance's replicas that are done.
        accumulators: those of the last replica, empty before its first step.
        step: number of the step that makes the last gradients.
        ready: the gradients of each bucket, of every replica of this instance, as they come.
        results: reduced buckets.
        errors: what stopped the reduction.
    """

    totals: Sequence[Sequence[torch.Tensor]]
    accumulators: List[torch.Tensor]
    step: int
    rule: Reduction
    ready: queue.Queue[List[torch.Tensor]] = field(default_factory=queue.Queue)
    results: List[torch.Tensor] = field(default_factory=list)
    errors: List[BaseException] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, bucket: Sequence[int], gradients: Sequence[torch.Tensor]) -> None:
        """The last step's gradients of a bucket are there."""
        before = [self.accumulators[index] for index in bucket] if self.accumulators else []
        own = accumulate(before, gradients, self.step, self.rule)
        self.ready.put([*(_flat([total[index] for index in bucket]) for total in self.totals), _flat(own)])


class GradientExchange:
    """`begin` before the last micro batch of an update, `finish` after it; in between the graph itself announces its gradients.

    The bits are those of `reduce_replicas` in one process: the same accumulators, added in the order of the replicas.
    """

    def __init__(
        self, graph: SplitGraph, first_gradient: int, shapes: Sequence[torch.Size], device: torch.device, instances: Instances
    ) -> None:
        self._shapes, self._device, self._instances = shapes, device, instances
        self._buckets: List[List[int]] = []
        self._update: Optional[_Update] = None  # the one under way
        self._thread: Optional[threading.Thread] = None
        if shapes:
            body, self._buckets = announcing(graph.body, first_gradient, [shape.numel() for shape in shapes], self._announce)
            graph.observe(body)

    def begin(
        self, totals: Sequence[Sequence[torch.Tensor]], accumulators: List[torch.Tensor], step: int, num_steps: int, rule: Reduction
    ) -> None:
        """The next micro batch is the last one.

        Args:
            totals: accumulators of this instance's replicas that are done.
            accumulators: those of the last replica, empty before its first step.
            step: number of the coming step, the last of `num_steps`.
        """
        self._update = _Update(totals, accumulators, step, rule)
        divisor = (1 if rule.is_running else num_steps) * (len(totals) + 1) * self._instances.count
        arguments = (self._update, float(divisor) if rule.is_mean else 1.0)
        self._thread = threading.Thread(target=self._reduce, args=arguments, daemon=True)
        self._thread.start()

    def finish(self) -> List[torch.Tensor]:
        """The reduced gradients, float32, in their order."""
        assert self._update is not None and self._thread is not None, "begin comes before finish"
        update, self._update = self._update, None
        with self._instances.waiting(update.started):
            self._thread.join()
            if update.errors:
                raise update.errors[0]
        reduced: Dict[int, torch.Tensor] = {}
        for flat, bucket in zip(update.results, self._buckets):
            pieces = flat.split([self._shapes[index].numel() for index in bucket])
            reduced.update((index, piece.view(self._shapes[index])) for index, piece in zip(bucket, pieces))
        return [reduced[index] for index in range(len(self._shapes))]

    def _announce(self, number: int, *gradients: torch.Tensor) -> None:
        """Called by the graph: the gradients of a bucket are there."""
        if self._update is not None:
            self._update.add(self._buckets[number], gradients)

    def _reduce(self, update: _Update, divisor: float) -> None:
        try:
            sizes = [sum(self._shapes[index].numel() for index in bucket) for bucket in self._buckets]
            with torch.no_grad():
                update.results = self._instances.reduce_in_order(sizes, self._arriving(update), divisor, self._device)
        except BaseException as error:  # noqa: BLE001  the training thread raises it again
            update.errors.append(error)

    def _arriving(self, update: _Update) -> Iterator[List[torch.Tensor]]:
        for _ in self._buckets:
            yield update.ready.get()


def _flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.reshape(-1).to(torch.float32) for gradient in gradients])


def announcing(body: fx.GraphModule, first: int, sizes: Sequence[int], announce: Announce) -> Tuple[fx.GraphModule, List[List[int]]]:
    """A copy of a graph that calls `announce(bucket, *gradients)` where the last gradient of a bucket is ready.

    Args:
        first: number of the graph's result that is the first gradient; `sizes` are their elements.

    Returns:
        The copy, and the numbers of the gradients in each bucket, in the order in which they are announced.
    """
    graph = fx.Graph()
    copies: Dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(body.graph, copies)
    results: Any = output
    gradients: List[fx.Node] = list(results)[first:]
    order = {node: position for position, node in enumerate(graph.nodes)}
    written = written_in_place(graph)
    end = len(order)
    ready = [end if node in written else order[node] for node in gradients]
    buckets = _buckets(ready, sizes)
    nodes = list(graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    for number, bucket in enumerate(buckets):
        last = max(ready[index] for index in bucket)
        anchor = nodes[min(max(last, len(inputs) - 1), len(nodes) - 1)]
        with graph.inserting_after(anchor):
            graph.call_function(announce, (number, *(gradients[index] for index in bucket)))
    graph.output(output)
    return fx.GraphModule(body, graph), buckets


def _buckets(ready: Sequence[int], sizes: Sequence[int]) -> List[List[int]]:
    """Gradients in the order in which they are ready, joined until they have BUCKET_ELEMENTS."""
    buckets: List[List[int]] = [[]]
    filled = 0
    for index in sorted(range(len(ready)), key=lambda index: ready[index]):
        if filled >= BUCKET_ELEMENTS:
            buckets.append([])
            filled = 0
        buckets[-1].append(index)
        filled += sizes[index]
    return buckets
