"""Sections 3.2, 3.12 and 5.7: structures, custom types and constants as arguments, hooks, parameters of replica groups."""

from __future__ import annotations

import collections

import pytest
import torch
from shared_models import Model, data, options
from torch import nn

import poptorch

# ---- hooks, custom types, warnings


def test_hooks_run_around_every_compilation():
    calls = []
    handles = [
        poptorch.registerPreCompileHook(lambda: calls.append("before")),
        poptorch.registerPostCompileHook(lambda: calls.append("after")),
    ]
    executor = poptorch.inferenceModel(Model())
    executor(data()[0])
    executor(data()[0])
    for handle in handles:
        handle.remove()
    poptorch.inferenceModel(Model())(data()[0])
    assert calls == ["before", "after"]
    with pytest.raises(RuntimeError, match="must be callable"):
        poptorch.registerPreCompileHook(3)


class Pair:
    def __init__(self, first, second, name):
        self.first, self.second, self.name = first, second, name


class PairParser(poptorch.ICustomArgParser):
    def yieldTensors(self, struct):
        yield struct.first
        yield struct.second

    def reconstruct(self, original_structure, tensor_iterator):
        return type(original_structure)(next(tensor_iterator), next(tensor_iterator), original_structure.name)


class Twins(Pair):
    pass


@pytest.mark.parametrize("kind", [Pair, Twins])
def test_custom_types_go_in_and_come_out(kind):
    class Swaps(nn.Module):
        def forward(self, pair):
            return [kind(pair.second, pair.first * 2, pair.name)]

    poptorch.registerCustomArgParser(Pair, PairParser())
    try:
        executor = poptorch.inferenceModel(Swaps(), options(2))
        (result,) = executor(kind(torch.ones(2), torch.zeros(2), "label"))
        assert type(result) is kind and result.name == "label"
        assert result.first.tolist() == [0, 0] and result.second.tolist() == [2, 2]
        with pytest.raises(poptorch.Error, match="mismatch for pair"):
            executor(kind(torch.ones(4), torch.zeros(4), "label"))
    finally:
        poptorch.registerCustomArgParser(Pair, None)
    with pytest.raises(poptorch.Error):
        poptorch.registerCustomArgParser(Pair, 3)


def test_named_tuples_and_keywords():
    point = collections.namedtuple("point", "x y")

    class Moves(nn.Module):
        def forward(self, start, *, by=None):
            return point(start.x + by["x"], start.y)

    executor = poptorch.inferenceModel(Moves())
    moved = executor(point(torch.ones(1), torch.ones(1)), by={"x": torch.ones(1)})
    assert isinstance(moved, point) and moved.x.item() == 2
    with pytest.raises(poptorch.Error, match="Keys mismatch for by: Unexpected arguments: z. Missing arguments: x"):
        executor(point(torch.ones(1), torch.ones(1)), by={"z": torch.ones(1)})
    with pytest.raises(poptorch.Error, match="Type mismatch for start"):
        executor(torch.ones(1), by={"x": torch.ones(1)})


def test_constants_are_fixed_at_compilation():
    class Scales(nn.Module):
        def forward(self, x, factor=2):
            return x * factor

    executor = poptorch.inferenceModel(Scales())
    assert executor(torch.ones(1), 3).item() == 3
    with pytest.raises(poptorch.Error, match="mismatch for factor: expected 3"):
        executor(torch.ones(1), 4)


def test_what_is_odd_about_inputs_is_said_once(caplog):
    class Sums(nn.Module):
        def forward(self, x, more=None):
            return x.sum(1)

    executor = poptorch.inferenceModel(Sums())
    for _ in range(2):
        executor(torch.ones(3, 2).t().requires_grad_(), more={"a": torch.ones(2)})
    messages = [record.getMessage() for record in caplog.records]
    assert sum("contiguous" in message for message in messages) == 1
    assert sum("Input tensor has requires_grad=True" in message for message in messages) == 1
    assert sum("Dictionaries" in message for message in messages) == 1


def test_zero_sized_tensors_are_refused():
    with pytest.raises(poptorch.Error, match="Zero-sized tensors are unsupported"):
        poptorch.inferenceModel(Model())(torch.ones(0, 3))
    with pytest.raises(poptorch.Error, match="Zero-sized tensors are unsupported"):
        poptorch.inferenceModel(lambda x: x[2:])(torch.ones(2))


def test_the_executor_stands_for_the_users_model():
    model = Model()
    executor = poptorch.trainingModel(model)
    assert executor.layer is model.layer and executor.model is model and executor._user_model is model
    with pytest.raises(AttributeError):
        executor.nothing  # noqa: B018
    again = poptorch.inferenceModel(executor)
    assert again.layer is model.layer and again.model is not model and type(again.model) is Model
    with pytest.raises(RuntimeError, match="Model has already been"):
        poptorch.trainingModel(executor)


def test_a_failed_compilation_leaves_everything_usable():
    class Fails(nn.Module):
        broken = True

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            if Fails.broken:
                raise KeyError("not yet")
            return self.layer(x)

    executor = poptorch.inferenceModel(Fails())
    with pytest.raises(KeyError):
        executor(torch.ones(1, 3))
    Fails.broken = False
    assert executor(torch.ones(1, 3)).shape == (1, 2)


def test_replicas_may_have_parameters_of_their_own():
    """Two groups of two replicas: each group learns its own weight from its own inputs."""

    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0], [10.0]]))

        def forward(self, x):
            return self.weight * x, poptorch.identity_loss((self.weight * x).sum(), reduction="none")

    model = Scales()
    executor = poptorch.trainingModel(model, options(replicas=4, mode=poptorch.OutputMode.All), torch.optim.SGD(model.parameters(), lr=1.0))
    executor.weight.replicaGrouping(poptorch.CommGroupType.Consecutive, 2, poptorch.VariableRetrievalMode.OnePerGroup)
    outputs, _ = executor(torch.tensor([1.0, 2.0, 3.0, 5.0]))
    assert outputs.flatten().tolist() == [1, 2, 30, 50]
    assert executor.weight.flatten().tolist() == [1 - 1.5, 10 - 4]  # the mean of a group's gradients: its inputs
    with pytest.raises(poptorch.Error):
        executor.weight.replicaGrouping(poptorch.CommGroupType.Consecutive, 2, poptorch.VariableRetrievalMode.OnePerGroup)
