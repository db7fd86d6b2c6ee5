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


@pytest.mark.parametrize(("compiled", "later"), [((), (torch.ones(2),)), ((torch.ones(2),), ())])
def test_a_tensor_in_the_place_of_none_is_another_type(compiled, later):
    class Adds(nn.Module):
        def forward(self, x, y=None):
            return x if y is None else x + y

    executor = poptorch.inferenceModel(Adds())
    executor(torch.ones(2), *compiled)
    kinds = {True: "<class 'torch.Tensor'>", False: "<class 'NoneType'>"}
    expected, got = kinds[bool(compiled)], kinds[bool(later)]
    with pytest.raises(poptorch.Error, match=f"Type mismatch for y: expected {expected} but got {got}"):
        executor(torch.ones(2), *later)


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
    assert executor.weight.flatten().tolist() == [
        1 - (1 + 2) / 4,
        10 - (3 + 5) / 4,
    ]  # a group's gradients, which are its inputs, over all replicas
    with pytest.raises(poptorch.Error):
        executor.weight.replicaGrouping(poptorch.CommGroupType.Consecutive, 2, poptorch.VariableRetrievalMode.OnePerGroup)


# ---- canonical form


ZERO, ONE, TWO, THREE = (torch.full((1,), float(value)) for value in range(4))


class Weighted(nn.Module):
    def forward(self, a, b=THREE, *rest, factor=2, offset=ZERO, **named):
        total = a - b * factor + offset
        for value in (*rest, *named.values()):
            total = total + value
        return total


@pytest.mark.parametrize("first", range(4))
def test_calls_that_mean_the_same_are_the_same(first):
    calls = [
        lambda model: model(ONE, TWO),
        lambda model: model(ONE, b=TWO),
        lambda model: model(b=TWO, a=ONE),
        lambda model: model(a=ONE, b=TWO, factor=2, offset=torch.zeros(1)),
    ]
    executor = poptorch.inferenceModel(Weighted())
    for call in (calls[first], *calls):
        assert call(executor).item() == 1 - 2 * 2


def test_defaults_are_inputs_like_any_other():
    executor = poptorch.inferenceModel(Weighted())
    assert executor(ONE).item() == 1 - 3 * 2
    assert executor(ONE, TWO, offset=THREE).item() == 1 - 2 * 2 + 3
    with pytest.raises(poptorch.Error, match="Value mismatch for factor: expected 2 but got 5"):
        executor(ONE, factor=5)
    executor = poptorch.inferenceModel(Weighted())
    assert executor(ONE, TWO, factor=5).item() == 1 - 2 * 5
    with pytest.raises(poptorch.Error, match="Value mismatch for factor: expected 5 but got 2"):
        executor(ONE)


def test_further_positional_and_named_inputs():
    executor = poptorch.inferenceModel(Weighted())
    assert executor(ONE, TWO, THREE, x=ONE, y=TWO).item() == 1 - 4 + 3 + 1 + 2
    assert executor(ONE, TWO, THREE, y=THREE, x=ONE).item() == 1 - 4 + 3 + 1 + 3
    with pytest.raises(poptorch.Error, match="Number of positional arguments mismatch: expected 3 arguments but got 2"):
        executor(ONE, TWO, x=ONE, y=TWO)
    with pytest.raises(poptorch.Error, match=r"Type mismatch for \*rest\[0\]: expected <class 'torch.Tensor'> but got <class 'int'>"):
        executor(ONE, TWO, 3, x=ONE, y=TWO)
    with pytest.raises(poptorch.Error, match="Keys mismatch for the named inputs: Unexpected arguments: p, q. Missing arguments: x, y"):
        executor(ONE, TWO, THREE, q=ONE, p=ONE)


def test_signatures_that_hide_or_lack_parameters():
    assert poptorch.inferenceModel(torch.nn.functional.logsigmoid)(ONE).item() == pytest.approx(-0.31326, abs=1e-5)
    passes_on = poptorch.inferenceModel(lambda *args, **kwargs: Weighted()(*args, **kwargs))
    assert passes_on(ONE, b=TWO).item() == 1 - 4
    with pytest.raises(poptorch.Error, match="Mandatory parameter a missing"):
        poptorch.inferenceModel(Weighted())(b=TWO)
    with pytest.raises(AssertionError, match="'a' is given twice"):
        poptorch.inferenceModel(Weighted())(ONE, a=TWO)


def test_dicts_are_matched_by_key():
    class Difference(nn.Module):
        def forward(self, pair, nested=None):
            return pair["a"] - pair["b"] if nested is None else nested[0]["a"] - nested[0]["b"]

    executor = poptorch.inferenceModel(Difference())
    assert executor({"a": THREE, "b": ONE}).item() == 2
    assert executor({"b": ONE, "a": THREE}).item() == 2
    nested = poptorch.inferenceModel(Difference())
    assert nested({}, [{"a": THREE, "b": ONE}]).item() == 2
    assert nested({}, [{"b": TWO, "a": THREE}]).item() == 1


def test_what_is_compared_inside_of_lists_and_tuples():
    class Sums(nn.Module):
        def forward(self, parts):
            return parts[0] + 1

    in_list, in_tuple = poptorch.inferenceModel(Sums()), poptorch.inferenceModel(Sums())
    in_list([ONE, "name"])
    in_list([ONE, "other"])  # a list's constants are passed over
    in_tuple((ONE, "name"))
    with pytest.raises(poptorch.Error, match=r"Value mismatch for parts\[1\]: expected 'name' but got 'other'"):
        in_tuple((ONE, "other"))
    for executor, kind in ((in_list, list), (in_tuple, tuple)):
        with pytest.raises(poptorch.Error, match=r"Shape mismatch for parts\[0\]"):
            executor(kind((torch.ones(2), "name")))
        with pytest.raises(poptorch.Error, match=r"Type mismatch for parts\[1\]: expected <class 'str'> but got <class 'torch.Tensor'>"):
            executor(kind((ONE, TWO)))


def test_the_order_of_the_checks():
    class Takes(nn.Module):
        def forward(self, a, b, *, c):
            return a + b + c

    executor = poptorch.inferenceModel(Takes())
    executor(ONE, ONE, c=ONE)
    wrong = torch.ones(2)
    with pytest.raises(poptorch.Error, match="Shape mismatch for a.*The inputs differ from those that the model was compiled for"):
        executor(wrong, wrong, c=wrong)
    with pytest.raises(poptorch.Error, match="Shape mismatch for b"):
        executor(ONE, wrong, c=wrong)
    with pytest.raises(poptorch.Error, match="Data type mismatch for c"):
        executor(ONE, ONE, c=wrong.half())  # the type before the shape
