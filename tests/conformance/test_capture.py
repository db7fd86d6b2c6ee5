"""Section 5: what runs on the device: capture, buffers, losses."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data, options
from torch import nn
from torch.nn import functional as F

import poptorch

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


def test_a_detached_path_demotes_a_loss_too():
    executor = losses(lambda self, x: poptorch.identity_loss((self.w * F.l1_loss(self.w, x).detach()).sum(), reduction="none"))
    assert executor(torch.zeros(2)).item() == 2


def test_losses_in_place_of_one_another():
    def forward(self, x):
        total = F.l1_loss(self.w, x)
        total += F.mse_loss(self.w, x)
        return poptorch.identity_loss(total, reduction="none")

    assert losses(forward)(torch.zeros(2)).item() == 2


# ---- types, devices, host tensors


def test_long_inputs_report_int32_inside():
    seen = []

    def forward(index, table):
        seen.append((index.dtype, table.dtype))
        return table[index], torch.gather(table, 0, index), index.argmax()

    rows, gathered, position = poptorch.inferenceModel(forward)(torch.tensor([1, 0]), torch.tensor([5.0, 7.0], dtype=torch.float64))
    assert seen == [(torch.int32, torch.float32)]
    assert rows.tolist() == gathered.tolist() == [7, 5] and position.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.float16, torch.float32])
def test_other_types_pass(dtype):
    assert poptorch.inferenceModel(lambda x: x.clone())(torch.ones(2).to(dtype)).dtype == dtype


def test_requests_for_the_ipu_are_met(caplog):
    def forward(x):
        return x + torch.ones(2, device="ipu") + torch.zeros(2) + torch.full_like(x, 2.0).to("ipu") + torch.arange(2, device=x.device)

    assert poptorch.inferenceModel(forward)(torch.zeros(2)).tolist() == [3, 4]
    assert any("torch.zeros" in record.getMessage() for record in caplog.records)


def test_cpu_tensors_do_not_mix_and_come_back_unchanged(caplog):
    def mixes(x):
        return x + torch.ones(2, device="cpu")

    with pytest.raises(poptorch.Error, match="Expected an IPU tensor"):
        poptorch.inferenceModel(mixes)(torch.zeros(2))
    constant = torch.ones(2)
    executor = poptorch.inferenceModel(lambda x: (x + constant, torch.ones(2, device="cpu") * 3))
    first, second = executor(torch.zeros(2))
    assert first.tolist() == [1, 1] and second.tolist() == [3, 3]
    assert any("CPU tensor" in record.getMessage() for record in caplog.records)


def test_distributions_are_not_validated_inside():
    def forward(x):
        return torch.distributions.Normal(x, torch.ones_like(x)).log_prob(x)

    assert poptorch.inferenceModel(forward)(torch.zeros(2)).shape == (2,)
    with pytest.raises(ValueError):
        torch.distributions.Normal(torch.zeros(1), -torch.ones(1))  # and are again outside


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: F.one_hot(x), "OneHot num classes must"),
        (lambda x: torch.bincount(x), "Bincount minlength must be .*`minlength`"),
        (lambda x: F.interpolate(x.float().view(1, 1, 4), scale_factor=2, mode="linear"), "not supported"),
    ],
)
def test_shapes_may_not_depend_on_values(forward, message):
    with pytest.raises(poptorch.Error, match=message):
        poptorch.inferenceModel(forward)(torch.tensor([0, 1, 1, 2]))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_one_hot_and_weight_norm_work():
    layer = torch.nn.utils.weight_norm(nn.Linear(3, 2))
    x = torch.tensor([0, 2])
    result = poptorch.inferenceModel(lambda x: layer(F.one_hot(x, num_classes=3).float()))(x)
    torch.testing.assert_close(result, layer(F.one_hot(x, num_classes=3).float()).detach())


def test_plain_attributes_are_constants():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.i = torch.zeros(1)

        def forward(self, x):
            self.i = self.i + 1
            return x + self.i

    executor = poptorch.inferenceModel(Counts())
    assert [executor(torch.zeros(1)).item() for _ in range(3)] == [1, 1, 1]


# ---- buffers


class Buffered(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.register_buffer("state", torch.zeros(1))
        self.weight = nn.Parameter(torch.ones(1))
        self.change = change

    def forward(self, x):
        self.change(self)
        return x + self.state * self.weight


def removes(module):
    del module.state
    module.state = torch.zeros(1)


def test_buffers_are_neither_removed_nor_bound_anew():
    with pytest.raises(poptorch.Error, match="Buffer state is reassigned"):
        poptorch.inferenceModel(Buffered(lambda m: setattr(m, "state", m.state + 1)))(torch.ones(1))
    with pytest.raises(poptorch.Error, match="Buffer state is removed"):
        poptorch.inferenceModel(Buffered(removes))(torch.ones(1))


def test_replicas_may_not_share_a_buffer_that_they_change():
    model = Buffered(lambda m: m.state.add_(1))
    with pytest.raises(poptorch.Error, match="PopTorch does not support"):
        poptorch.inferenceModel(model, options(replicas=2))(torch.zeros(2))
    own = poptorch.inferenceModel(model, options(2, replicas=2).broadcastBuffers(False))
    assert own(torch.zeros(4)).tolist() == [1, 1, 2, 2]
    poptorch.inferenceModel(Buffered(lambda m: None), options(replicas=2))(torch.zeros(2))


def test_equal_gradients_of_two_parameters_stay_apart():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return poptorch.identity_loss((self.a + self.b).sum() * x.mean(), reduction="none")

    model = Sums()
    executor = poptorch.trainingModel(model, options(1, 2, 2), poptorch.optim.SGD(model.parameters(), lr=0.5, loss_scaling=4.0))
    executor(torch.ones(4))
    assert model.a.tolist() == model.b.tolist() == [0.5, 0.5]


# ---- half


def test_stochastic_rounding_is_unbiased_in_results():
    chosen = poptorch.Options().randomSeed(3)
    chosen.Precision.enableStochasticRounding(True)
    between = 1 + 0.25 * 2**-10
    result = poptorch.inferenceModel(lambda x: (x * between).half(), chosen)(torch.ones(20000))
    assert set(result.tolist()) == {1.0, 1 + 2**-10}
    assert abs((result > 1).float().mean().item() - 0.25) < 0.02  # deviation 0.003


def test_batch_norm_in_half_may_keep_float_statistics():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 2, 1).half()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            out = self.norm(self.convolution(x).float())
            return poptorch.identity_loss((out * out).mean(), reduction="none")

    model = Normed()
    poptorch.trainingModel(model)(torch.randn(4, 1, 3, 3).half())
    assert model.norm.running_mean.dtype == torch.float32 and model.norm.running_mean.abs().sum() > 0
