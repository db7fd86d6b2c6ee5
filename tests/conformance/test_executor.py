"""Sections 3 to 5: wrapping, calling, where weights move, output modes, capture, losses."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poptorch


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, y=None):
        out = self.layer(x)
        return out if y is None else (out, F.mse_loss(out, y))


def data(batch=4):
    return torch.randn(batch, 3), torch.randn(batch, 2)


def options(iterations=1, accumulation=1, replicas=1, mode=None, period=None):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    if mode is not None:
        chosen.outputMode(mode, period)
    return chosen


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


# ---- capture


def test_forward_runs_once():
    class Counter(nn.Module):
        calls = 0

        def forward(self, x):
            Counter.calls += 1
            assert poptorch.isRunningOnIpu()
            return x + Counter.calls

    executor = poptorch.inferenceModel(Counter(), options(2))
    assert [executor(torch.zeros(2)).tolist() for _ in range(3)] == [[1, 1]] * 3
    assert Counter.calls == 1 and not poptorch.isRunningOnIpu()


def test_branching_on_a_tensor_is_a_clear_error():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(poptorch.Error, match="reads the value of a tensor"):
        poptorch.inferenceModel(Branch())(torch.ones(2))


def test_buffers_updated_in_place_persist():
    class Accumulator(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(1))

        def forward(self, x):
            self.total.add_(x.sum())
            return self.total * 1

    model = Accumulator()
    executor = poptorch.inferenceModel(model, options(3))
    assert executor(torch.ones(3)).tolist() == [1, 2, 3]
    assert executor(torch.ones(3)).tolist() == [4, 5, 6]
    assert model.total.item() == 0  # an inference model does not download by itself
    executor.copyWeightsToHost()
    assert model.total.item() == 6


def test_batch_norm_keeps_statistics_for_each_replica_and_returns_replica_0s():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1, momentum=1.0)

        def forward(self, x):
            out = self.norm(x)
            return out, poptorch.identity_loss(out.sum(), reduction="none")

    model = Normed()
    executor = poptorch.trainingModel(model, options(replicas=2))
    executor(torch.tensor([[1.0], [3.0], [10.0], [30.0]]))
    executor.copyWeightsToHost()
    assert model.norm.running_mean.tolist() == [2.0]
    assert model.norm.num_batches_tracked == 1


def test_custom_autograd_functions_keep_their_backward():
    class Tripled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 3

    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return poptorch.identity_loss((Tripled.apply(self.w) * x).sum(), reduction="none")

    model = Uses()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    executor(torch.ones(1))
    executor.copyWeightsToHost()
    assert model.w.item() == 1 - 3


def test_frozen_parameters_do_not_move():
    model = Model()
    model.layer.bias.requires_grad_(False)
    before = model.layer.bias.clone()
    executor = poptorch.trainingModel(model)
    executor(*data())
    executor.copyWeightsToHost()
    assert torch.equal(model.layer.bias, before)


# ---- losses


def losses(forward):
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

    Chosen.forward = forward
    return poptorch.trainingModel(Chosen())


def test_a_training_graph_needs_exactly_one_final_loss():
    with pytest.raises(poptorch.Error, match="Couldn't find a loss"):
        losses(lambda self, x: (self.w * x).sum())(torch.ones(2))
    with pytest.raises(poptorch.Error, match="Multiple independent losses found"):
        losses(lambda self, x: (F.l1_loss(self.w, x), F.mse_loss(self.w, x)))(torch.ones(2))


def test_a_loss_that_feeds_another_is_demoted():
    executor = losses(lambda self, x: poptorch.identity_loss(F.l1_loss(self.w, x) + F.mse_loss(self.w, x), reduction="none"))
    assert executor(torch.zeros(2)).item() == 2  # |1| + 1^2


def test_the_final_loss_is_a_single_value():
    with pytest.raises(poptorch.Error, match="single value"):
        losses(lambda self, x: poptorch.identity_loss(self.w * x, reduction="none"))(torch.ones(2))


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 3.0), ("mean", 1.5)])
def test_identity_loss_reduces_also_on_the_host(reduction, expected):
    assert poptorch.identity_loss(torch.tensor([1.0, 2.0]), reduction=reduction).item() == expected
    with pytest.raises(AssertionError):
        poptorch.identity_loss(torch.ones(2), reduction="maximum")


def test_a_loss_without_parameters_runs():
    executor = losses(lambda self, x: F.mse_loss(x, x + 1))
    assert executor(torch.zeros(2)).item() == 1


# ---- where weights move


def test_the_host_is_stale_until_weights_are_copied():
    model = Model()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    before = model.layer.weight.detach().clone()
    executor(*data())
    assert not torch.equal(model.state_dict()["layer.weight"], before)  # looking at the module downloads
    assert not model.copyWeightsToHostIfNeeded()
    executor(*data())
    assert model.copyWeightsToHostIfNeeded()


def test_host_edits_are_invisible_until_copied_to_the_device():
    model, (x, _) = Model(), data()
    executor = poptorch.inferenceModel(model)
    before = executor(x)
    model.layer.weight.data.zero_()
    model.layer.bias.data.fill_(7.0)
    assert torch.equal(executor(x), before)
    executor.copyWeightsToDevice()
    assert executor(x).tolist() == [[7.0, 7.0]] * 4


def test_an_inference_model_follows_the_trainer_of_its_module():
    model, (x, y) = Model(), data()
    trainer = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    follower = poptorch.inferenceModel(model)
    first = follower(x)
    trainer(x, y)
    second = follower(x)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, model.layer(x).detach())


def test_attaching_and_detaching():
    executor = poptorch.inferenceModel(Model())
    with pytest.raises(poptorch.Error, match="Model has not been"):
        executor.detachFromDevice()
    with pytest.raises(poptorch.Error, match="Model has not been"):
        executor.copyWeightsToHost()
    executor(data()[0])
    with pytest.raises(poptorch.Error):
        executor.attachToDevice()
    executor.detachFromDevice()
    with pytest.raises(poptorch.Error, match="Device is not attached"):
        executor.detachFromDevice()
    assert executor(data()[0]).shape == (4, 2)  # attaches by itself


def test_detaching_changes_nothing_in_training():
    results = []
    for detaches in (False, True):
        torch.manual_seed(0)
        model = Model()
        executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        for step in range(4):
            torch.manual_seed(step)
            executor(*data())
            if detaches:
                executor.detachFromDevice()
        results.append(model.state_dict()["layer.weight"].clone())
    assert torch.equal(*results)


def test_wrapping_twice_is_refused_until_destroyed():
    model = Model()
    executor = poptorch.trainingModel(model)
    assert isinstance(model, Model) and type(model).__name__ == "PoptorchModel"
    with pytest.raises(RuntimeError, match="Model has already been"):
        poptorch.trainingModel(model)
    executor(*data())
    executor.destroy()
    assert type(model) is Model
    poptorch.trainingModel(model)


def test_wrapped_modules_copy_and_pickle_as_their_own_class():
    model = Model()
    poptorch.trainingModel(model)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert type(copy.deepcopy(model)) is Model
    assert type(pickle.loads(pickle.dumps(model))) is Model


# ---- random numbers


def test_same_seed_same_numbers_and_replicas_differ():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    draws = []
    for _ in range(2):
        executor = poptorch.inferenceModel(Noise(), options(2, 1, 2).randomSeed(5))
        draws.append(torch.cat([executor(torch.zeros(16)), executor(torch.zeros(16))]))
        assert executor.rng_state[0] == 5
    assert torch.equal(*draws)
    assert len(set(draws[0].view(8, 4)[:, 0].tolist())) == 8


def test_random_state_is_settable_once_compiled():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    executor = poptorch.inferenceModel(Noise(), options().randomSeed(5))
    with pytest.raises(poptorch.Error):
        executor.rng_state  # noqa: B018
    first = executor(torch.zeros(4))
    state = executor.rng_state
    second = executor(torch.zeros(4))
    executor.rng_state = state
    assert torch.equal(executor(torch.zeros(4)), second) and not torch.equal(first, second)


def test_synthetic_data_keeps_shapes_and_needs_no_host():
    executor = poptorch.inferenceModel(Model(), poptorch.Options().enableSyntheticData(True))
    first, second = executor(torch.zeros(4, 3)), executor(torch.ones(4, 3))
    assert first.shape == (4, 2) and torch.equal(first, second)


def test_floating_point_exceptions():
    class Divide(nn.Module):
        def forward(self, x):
            return 1 / x

    chosen = poptorch.Options()
    chosen.Precision.enableFloatingPointExceptions(True)
    executor = poptorch.inferenceModel(Divide(), chosen)
    executor(torch.ones(1))
    with pytest.raises(poptorch.Error):
        executor(torch.zeros(1))
