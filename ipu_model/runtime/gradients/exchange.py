"""Gradients of several instances: reduced in few large buckets, each as soon as the last backward pass of an update has made it."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import fx

from ..graph.aliases import written_in_place
from ..graph.hoisting import SplitGraph
from ..instances import Instances
from .reduction import Reduction, accumulate

BUCKET_ELEMENTS = 2**21  # of float32: at least 8 MiB travel between instances at a time

Announce = Callable[..., None]


class GradientExchange:
    """`begin` before the last micro batch of an update, `finish` after it; in between the graph itself announces its gradients.

    The bits are those of `reduce_replicas` in one process: the same accumulators, added in the order of the replicas.
    """

    def __init__(
        self, graph: SplitGraph, first_gradient: int, shapes: Sequence[torch.Size], device: torch.device, instances: Instances
    ) -> None:
        self._shapes, self._device, self._instances = shapes, device, instances
        self._buckets: List[List[int]] = []
        self._is_active = False
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
        self._totals, self._accumulators, self._step, self._rule = totals, accumulators, step, rule
        divisor = (1 if rule.is_running else num_steps) * (len(totals) + 1) * self._instances.count
        self._ready: queue.Queue[List[torch.Tensor]] = queue.Queue()
        self._results: List[torch.Tensor] = []
        self._errors: List[BaseException] = []
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._reduce, args=(float(divisor) if rule.is_mean else 1.0,), daemon=True)
        self._is_active = True
        self._thread.start()

    def finish(self) -> List[torch.Tensor]:
        """The reduced gradients, float32, in their order."""
        self._is_active = False
        with self._instances.waiting(self._started):
            self._thread.join()
            if self._errors:
                raise self._errors[0]
        reduced: Dict[int, torch.Tensor] = {}
        for flat, bucket in zip(self._results, self._buckets):
            pieces = flat.split([self._shapes[index].numel() for index in bucket])
            reduced.update((index, piece.view(self._shapes[index])) for index, piece in zip(bucket, pieces))
        return [reduced[index] for index in range(len(self._shapes))]

    def _announce(self, number: int, *gradients: torch.Tensor) -> None:
        """Called by the graph: the gradients of a bucket are there."""
        if not self._is_active:
            return
        bucket = self._buckets[number]
        own = accumulate([self._accumulators[index] for index in bucket] if self._accumulators else [], gradients, self._step, self._rule)
        self._ready.put([*(_flat([total[index] for index in bucket]) for total in self._totals), _flat(own)])

    def _reduce(self, divisor: float) -> None:
        try:
            sizes = [sum(self._shapes[index].numel() for index in bucket) for bucket in self._buckets]
            with torch.no_grad():
                self._results = self._instances.reduce_in_order(sizes, self._arriving(), divisor, self._device)
        except BaseException as error:  # noqa: BLE001  the training thread raises it again
            self._errors.append(error)

    def _arriving(self) -> Iterator[List[torch.Tensor]]:
        for _ in self._buckets:
            yield self._ready.get()


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
