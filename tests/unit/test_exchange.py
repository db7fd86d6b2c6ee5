"""Gradients of several instances: announced by the graph as they are made, added in one order."""

from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st
from torch import fx

from ipu_model.runtime.gradients import exchange
from ipu_model.runtime.gradients.reduction import Reduction, accumulate, reduce_replicas


class Layers(torch.nn.Module):
    """A chain whose results are made one after the other."""

    def forward(self, x, w1, w2, w3):
        a = x * w1
        b = torch.exp(a) * w2
        c = torch.sin(b) * w3
        return x.sum(), a, b, c


def test_gradients_are_announced_before_the_next_ones_are_made(monkeypatch):
    monkeypatch.setattr(exchange, "BUCKET_ELEMENTS", 4)
    seen = []
    body = fx.symbolic_trace(Layers())
    observed, buckets = exchange.announcing(body, 1, [4, 2, 2], lambda number, *gradients: seen.append((number, gradients)))
    x, w1, w2, w3 = torch.rand(2), torch.rand(2), torch.rand(2), torch.rand(2)
    expected, results = body(x, w1, w2, w3), observed(x, w1, w2, w3)
    assert buckets == [[0], [1, 2]] and [number for number, _ in seen] == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(results, expected))
    announced = [gradient for _, gradients in seen for gradient in gradients]
    assert all(torch.equal(a, b) for a, b in zip(announced, expected[1:]))
    order = [str(node.target) for node in observed.graph.nodes if node.op == "call_function"]
    calls = [index for index, name in enumerate(order) if "lambda" in name]
    assert calls[0] < len(order) - 4  # exp, mul, sin and mul are still to come


class FakeInstances:
    """The chain of several instances in one thread each would need sockets: this one only hands its own parts through."""

    count = 1

    def reduce_in_order(self, sizes, buckets, divisor, device):
        totals = []
        for size, (total, *following) in zip(sizes, buckets):
            assert total.numel() == size
            for part in following:
                total.add_(part)
            totals.append(total.div_(divisor))
        return totals

    def waiting(self, started):
        import contextlib

        return contextlib.nullcontext()


class Graph:
    """What GradientExchange needs of a SplitGraph."""

    def __init__(self, body):
        self.body = body

    def observe(self, body):
        self.body = body


@settings(max_examples=20, deadline=None)
@given(replicas=st.integers(1, 3), steps=st.integers(1, 3), is_running=st.booleans(), is_half=st.booleans(), seed=st.integers(0, 99))
def test_the_last_micro_batch_is_accumulated_and_reduced_as_all_others(replicas, steps, is_running, is_half, seed):
    torch.manual_seed(seed)
    rule = Reduction(True, is_running, torch.float16 if is_half else torch.float32)
    graph = Graph(fx.symbolic_trace(Layers()))
    one = exchange.GradientExchange(graph, 1, [torch.Size([2])] * 3, torch.device("cpu"), FakeInstances())
    inputs = [[[torch.rand(2) for _ in range(4)] for _ in range(steps)] for _ in range(replicas)]

    totals, reduced = [], None
    for replica in range(replicas):
        gradients = []
        for step in range(steps):
            is_last = replica == replicas - 1 and step == steps - 1
            if is_last:
                one.begin(totals, [gradient.clone() for gradient in gradients], step, steps, rule)
            fresh = [gradient.clone() for gradient in graph.body(*inputs[replica][step])[1:]]
            reduced = one.finish() if is_last else None
            gradients = accumulate(gradients, fresh, step, rule)
        totals.append(gradients)
    assert all(torch.equal(a, b) for a, b in zip(reduced, reduce_replicas(totals, steps, rule)))
