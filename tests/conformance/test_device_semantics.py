"""Sections 4.3, 5.1, 5.2 and 5.6: types, devices, host tensors, buffers, half precision inside forward."""

from __future__ import annotations

import copy

import pytest
import torch
from shared_models import options
from torch import nn
from torch.nn import functional as F

import poptorch

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


def test_cpu_tensors_do_not_mix_and_come_back_unchanged():
    def mixes(x):
        return x + torch.ones(2, device="cpu")

    with pytest.raises(poptorch.Error, match="Expected an IPU tensor"):
        poptorch.inferenceModel(mixes)(torch.zeros(2))
    executor = poptorch.inferenceModel(lambda x: (x + 1, torch.ones(2, device="cpu") * 3))
    with pytest.warns(UserWarning, match="on cpu"):
        first, second = executor(torch.zeros(2))
    assert first.tolist() == [1, 1] and second.tolist() == [3, 3]


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
    ending = r"when calling the forward method.*self\.{}\.copy_\(src\)"
    with pytest.raises(poptorch.Error, match=f"Buffer state is reassigned within the model {ending.format('state')}"):
        poptorch.inferenceModel(Buffered(lambda m: setattr(m, "state", m.state + 1)))(torch.ones(1))
    with pytest.raises(poptorch.Error, match=f"Buffer state is removed from the model {ending.format('state')}"):
        poptorch.inferenceModel(Buffered(removes))(torch.ones(1))
    with pytest.raises(poptorch.Error, match=f"Parameter weight is reassigned within the model {ending.format('weight')}"):
        poptorch.inferenceModel(Buffered(lambda m: setattr(m, "weight", nn.Parameter(m.weight * 2))))(torch.ones(1))


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


def test_half_buffers_are_updated():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2, momentum=1.0)
            self.register_buffer("total", torch.zeros(1))

        def forward(self, x):
            self.total.add_(1)
            return poptorch.identity_loss(self.norm(x).float().square().mean(), reduction="none")

    model = Normed().half()
    executor = poptorch.trainingModel(model, options(1, 3))
    executor(torch.tensor([[0.0, 2.0], [4.0, 4.0]] * 3).half())
    assert model.norm.running_mean.tolist() == [2, 3] and model.total.item() == 3
    assert model.norm.running_var.dtype == torch.float16


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_train(layer):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer(3, 4, batch_first=True)

        def forward(self, x):
            return poptorch.identity_loss(self.layer(x)[0].square().mean(), reduction="none")

    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(2, 5, 3)
    reference = copy.deepcopy(model)
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    loss = executor(x)
    expected = reference(x)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    weight = reference.layer.weight_hh_l0
    torch.testing.assert_close(model.layer.weight_hh_l0.detach(), (weight - 0.5 * weight.grad).detach())


@pytest.mark.parametrize(("weights", "inputs"), [(torch.float32, torch.float32), (torch.float16, torch.float16)])
@pytest.mark.parametrize("is_training", [True, False])
def test_running_statistics_read_behind_a_batch_norm_are_those_of_before(is_training, weights, inputs):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1, momentum=1.0)
            for parameter in self.norm.parameters():
                parameter.data = parameter.data.to(weights)

        def forward(self, x):
            self.norm(x * 2)
            between = self.norm.running_mean * 1
            out = self.norm(x)
            loss = poptorch.identity_loss(out.float().sum(), reduction="sum")
            return between, self.norm.running_mean, self.norm.running_var * 1, loss

    model = Normed()
    executor = poptorch.trainingModel(model) if is_training else poptorch.inferenceModel(model)
    x = torch.tensor([[1.0], [3.0]], dtype=inputs)  # mean 2, variance 2
    assert [value.item() for value in executor(x)[:3]] == [0, 4, 8]  # before the first norm; before the second
    assert [value.item() for value in executor(x)[:3]] == [2, 4, 8]
    executor.copyWeightsToHost()
    assert (model.norm.running_mean.item(), model.norm.running_var.item()) == (2, 2)
    assert model.norm.num_batches_tracked.item() == 4
