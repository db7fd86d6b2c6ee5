"""Section 18.11: operations between replicas inside forward, custom operators of the domain ai.graphcore."""

from __future__ import annotations

import pytest
import torch
from shared_models import options
from torch import nn

import poptorch


def collective(name, x, example):
    return poptorch.custom_op([x], name=f"Replicated{name}", domain="ai.graphcore", domain_version=1, example_outputs=[example])[0]


def gathered(x, replicas):
    return collective("AllGather", x, torch.zeros(replicas, *x.shape, dtype=x.dtype))


def on_replicas(function, values, iterations=1):
    """Results of a function on replicas that each get one row of `values`: [iterations, replicas, ...]."""
    replicas = values.shape[0] // iterations
    executor = poptorch.inferenceModel(function, options(iterations, replicas=replicas))
    return executor(values).unflatten(0, (iterations, replicas, -1)).squeeze(2)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_all_gather_gives_every_replica_all_values(replicas):
    values = torch.arange(2 * replicas * 3.0).view(2 * replicas, 3)
    results = on_replicas(lambda x: gathered(x, replicas).view(1, -1), values, iterations=2)
    for iteration in range(2):
        expected = values[iteration * replicas : (iteration + 1) * replicas].flatten()
        assert all(torch.equal(result, expected) for result in results[iteration])


def test_all_reduce_adds_up():
    values = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    results = on_replicas(lambda x: collective("AllReduce", x, x) * 2 + x, values, iterations=2)
    assert results.flatten().tolist() == [23, 32, 2300, 3200]


def test_all_to_all_exchanges_axis_and_replica():
    values = torch.arange(16.0)  # replica r has 4r to 4r + 3, one for each replica
    result = poptorch.inferenceModel(lambda x: collective("AllToAll", x, x), options(replicas=4))(values)
    assert torch.equal(result, values.view(4, 4).t().flatten())


def test_reduce_scatter_gives_each_replica_its_part_of_the_sum():
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    results = on_replicas(lambda x: collective("ReduceScatter", x, torch.zeros(1, 2)), values)
    assert results.tolist() == [[[11, 22], [33, 44]]]


def test_operations_between_replicas_follow_one_another():
    values = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    def forward(x):
        for _ in range(3):
            x = gathered(x, 4).sum(0) + x
        return x

    reference = values.clone()
    for _ in range(3):
        reference = reference.sum(0) + reference
    assert torch.equal(on_replicas(forward, values)[0], reference)


class Shared(nn.Module):
    """A loss of each replica that depends on the values of all."""

    def __init__(self, name, replicas):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.name, self.replicas = name, replicas

    def forward(self, x, scale):
        mine = self.w * x  # [1, 4]
        example = {
            "AllGather": torch.zeros(self.replicas, 1, 4),
            "AllReduce": mine,
            "AllToAll": mine.view(self.replicas, -1),
            "ReduceScatter": torch.zeros(4 // self.replicas),
        }[self.name]
        value = mine.view(self.replicas, -1) if self.name == "AllToAll" else mine
        result = collective(self.name, value, example)
        weights = torch.arange(1.0, result.numel() + 1).view_as(result)
        return poptorch.identity_loss((result.square() * weights).sum() * scale.sum(), reduction="sum")


def plain_loss(name, w, x, scale):
    """The sum of the losses of all replicas, in plain torch."""
    mine = [w * row for row in x]
    replicas = len(mine)
    together = torch.stack(mine)
    results = {
        "AllGather": [together] * replicas,
        "AllReduce": [together.sum(0)] * replicas,
        "AllToAll": [together.view(replicas, replicas, -1)[:, r] for r in range(replicas)],
        "ReduceScatter": list(together.sum(0).view(replicas, -1)),
    }[name]
    weighted = [(value.square() * torch.arange(1.0, value.numel() + 1).view_as(value)).sum() for value in results]
    return sum(loss * factor.sum() for loss, factor in zip(weighted, scale))


@pytest.mark.parametrize("name", ["AllGather", "AllReduce", "AllToAll", "ReduceScatter"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_pass_between_replicas(name, accumulation):
    replicas, torch_rows = 2, torch.randn(2 * accumulation, 4)
    scale = torch.rand(2 * accumulation, 1)
    model = Shared(name, replicas)
    chosen = options(accumulation=accumulation, replicas=replicas)
    chosen.Training.accumulationAndReplicationReductionType(poptorch.ReductionType.Sum)
    w = model.w.detach().clone().requires_grad_(True)
    expected = sum(plain_loss(name, w, torch_rows[2 * step : 2 * step + 2], scale[2 * step : 2 * step + 2]) for step in range(accumulation))
    expected.backward()
    executor = poptorch.trainingModel(model, chosen, torch.optim.SGD(model.parameters(), lr=1.0))
    executor(torch_rows, scale)
    torch.testing.assert_close(w.detach() - model.w.detach(), w.grad)


def test_random_numbers_are_those_of_replicas_that_run_alone():
    def forward(x, is_joint):
        first = torch.rand(1, 4)
        if is_joint:
            first = first + 0 * gathered(x, 2).sum()
        return torch.cat([first, torch.rand(1, 4)], dim=1)

    def results(is_joint):
        chosen = options(2, replicas=2).randomSeed(3)
        return poptorch.inferenceModel(forward, chosen)(torch.ones(4, 1), is_joint)

    assert torch.equal(results(True), results(False)) and len(set(results(True).flatten().tolist())) == 32


def test_shapes_say_how_many_replicas_there_are():
    with pytest.raises(poptorch.Error, match="3 replicas"):
        on_replicas(lambda x: gathered(x, 3).view(1, -1), torch.ones(2, 1))
    with pytest.raises(poptorch.Error, match="example output"):
        on_replicas(lambda x: collective("AllReduce", x, torch.zeros(1, 7)), torch.ones(2, 1))


def test_an_operation_that_only_some_replicas_reach_is_an_error():
    def forward(x):
        return poptorch.cond(x.sum() > 1, lambda v: collective("AllReduce", v, v), [x], lambda v: v * 1, [x])[0]

    with pytest.raises(poptorch.Error, match="Not all replicas"):
        on_replicas(forward, torch.tensor([[1.0], [2.0]]))
    assert on_replicas(forward, torch.tensor([[3.0], [2.0]])).flatten().tolist() == [5, 5]
