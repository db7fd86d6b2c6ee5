"""Sections 3 and 4: wrapping, calling, data layout and output modes."""

from __future__ import annotations

import collections

import pytest
import torch
from shared_models import Model, data, options
from torch import nn

import poptorch

# ---- calling


def test_inference_returns_what_forward_returns():
    model, (x, _) = Model(), data()
    out = poptorch.inferenceModel(model)(x)
    torch.testing.assert_close(out, model(x).detach())
    assert not out.requires_grad


def test_structures_and_constants_come_back():
    class Nested(nn.Module):
        def forward(self, x, scale=2):
            return {"a": (x, [x * scale, "text"]), "b": None}

    out = poptorch.inferenceModel(Nested())(torch.ones(2), scale=3)
    assert out["b"] is None and out["a"][1][1] == "text"
    assert out["a"][1][0].tolist() == [3.0, 3.0]


def test_arguments_are_checked():
    executor = poptorch.inferenceModel(Model())
    x, y = data()
    with pytest.raises(AssertionError):
        executor(x, y, x)
    with pytest.raises(AssertionError):
        executor(x, z=y)
    with pytest.raises(AssertionError):
        executor(x, x=x)
    with pytest.raises(poptorch.Error, match="Mandatory parameter x missing"):
        executor()


def test_shapes_and_types_are_fixed_at_compilation():
    executor = poptorch.inferenceModel(Model())
    x, y = data()
    executor(x)
    with pytest.raises(poptorch.Error, match=r"expected torch.Size\(\[4, 3\]\) but got torch.Size\(\[2, 3\]\)"):
        executor(x[:2])
    with pytest.raises(poptorch.Error, match="expected torch.float32 but got torch.float16"):
        executor(x.half())
    with pytest.raises(poptorch.Error, match="Number of positional arguments"):
        executor(x, y)
    executor.destroy()
    assert executor(x[:2]).shape == (2, 2)


def test_errors_have_a_type_and_a_message():
    with pytest.raises(poptorch.Error) as raised:
        poptorch.inferenceModel(Model())()
    assert raised.value.type == "poptorch_py_error"
    assert str(raised.value).startswith("'poptorch_py_error': ")
    assert isinstance(raised.value, RuntimeError)


def test_options_must_be_options():
    with pytest.raises(poptorch.Error):
        poptorch.inferenceModel(Model(), options=3)
    with pytest.raises(poptorch.Error, match="You must set poptorch.Options"):
        poptorch.inferenceModel(Model(), options(accumulation=2))


def test_backward_cannot_be_called_on_outputs():
    out = poptorch.inferenceModel(Model())(data()[0])
    with pytest.raises(poptorch.Error, match="cannot be called"):
        out.backward()


def test_offline_models_only_compile():
    executor = poptorch.inferenceModel(Model(), poptorch.Options().useOfflineIpuTarget())
    executor.compile(data()[0])
    assert executor.isCompiled() and not executor.isAttachedToDevice()
    with pytest.raises(AssertionError, match="Trying to run a"):
        executor(data()[0])


def test_wide_types_come_back_narrow():
    class Wide(nn.Module):
        def forward(self, x, index):
            return x * 2, index + 1

    doubled, index = poptorch.inferenceModel(Wide())(torch.ones(2, dtype=torch.float64), torch.tensor([1, 2]))
    assert (doubled.dtype, index.dtype) == (torch.float32, torch.int32)


# ---- layout and output modes


def test_a_batch_must_divide_and_the_message_names_the_factors():
    executor = poptorch.trainingModel(Model(), options(2, 2, 2))
    with pytest.raises(AssertionError, match="deviceIterations 2 x gradientAccumulation 2 x replicationFactor 2"):
        executor(*data(12))


@pytest.mark.parametrize(
    ("mode", "period", "chunks"),
    [
        (poptorch.OutputMode.All, None, list(range(24))),
        (poptorch.OutputMode.Final, None, [22, 23]),
        (poptorch.OutputMode.Sum, None, None),
        (poptorch.OutputMode.EveryN, 2, list(range(6, 12)) + list(range(18, 24))),
    ],
)
def test_output_modes_return_their_chunks(mode, period, chunks):
    """4 iterations x 3 steps x 2 replicas, micro batches of 2 rows; nothing learns, so each chunk is known."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x, poptorch.identity_loss(x.mean() + 0 * self.unused.sum(), reduction="none")

    x = torch.arange(48.0).view(48, 1)
    rows, losses = poptorch.trainingModel(Mean(), options(4, 3, 2, mode, period))(x)
    micro = x.view(24, 2)
    if chunks is None:
        expected = micro.view(12, 2, 2).sum(0)  # over iterations and steps, for each replica
        torch.testing.assert_close(rows.view(2, 2), expected)
        torch.testing.assert_close(losses, micro.mean(1).view(12, 2).sum(0))
    else:
        torch.testing.assert_close(rows.view(-1, 2), micro[chunks])
        torch.testing.assert_close(losses, micro[chunks].mean(1))


def test_training_returns_final_and_inference_all_by_default():
    model, (x, y) = Model(), data(12)
    assert poptorch.trainingModel(model, options(3, 2, 1))(x, y)[0].shape == (2, 2)
    assert poptorch.inferenceModel(Model(), options(3))(x).shape == (12, 2)


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
    with pytest.raises(poptorch.Error, match="Missing arguments: x. Unexpected arguments: z."):
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
    assert again.model is model
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
