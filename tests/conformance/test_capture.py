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
    with pytest.raises(poptorch.Error, match="Couldn't find a loss in graph"):
        losses(lambda self, x: (self.w * x).sum())(torch.ones(2))
    with pytest.raises(poptorch.Error, match="Multiple independent losses found in graph.*one final loss.*poptorch.identity_loss"):
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


@pytest.mark.parametrize("as_tensor", [True, False])
@pytest.mark.parametrize("as_input", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("labels", [torch.int64, torch.int32])
def test_ctc_loss_trains_like_torch(as_tensor, as_input, reduction, labels):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)
            self.lengths = tuple(torch.tensor(v) if as_tensor else v for v in ([6, 4], [2, 1]))

        def forward(self, x, targets, *lengths):
            if as_tensor and not lengths:
                lengths = [value.to(x.device) for value in self.lengths]
            probs = self.layer(x.transpose(0, 1)).log_softmax(-1)
            return F.ctc_loss(probs, targets, *(lengths or self.lengths), reduction=reduction)

    model, x, targets = Reads(), torch.randn(2, 6, 3), torch.tensor([[1, 2], [3, 1]])
    probs = model.layer(x.transpose(0, 1)).log_softmax(-1)
    expected = F.ctc_loss(probs, targets, [6, 4], [2, 1], reduction=reduction)
    (gradient,) = torch.autograd.grad(expected, model.layer.weight)
    before = model.layer.weight.detach().clone()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    lengths = [torch.tensor([6, 4]), torch.tensor([2, 1])] if as_input and as_tensor else []
    loss = executor(x, targets.to(labels), *lengths)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(model.layer.weight.detach(), before - gradient)


@pytest.mark.parametrize(("number", "reduction"), [(1, "mean"), (2, "sum")])
def test_torch_s_own_ctc_loss_is_the_same(number, reduction):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x, targets):
            return torch.ctc_loss(self.layer(x).log_softmax(-1), targets, [6, 4], [2, 1], 0, number, False)

    model, x, targets = Reads(), torch.randn(6, 2, 3), torch.tensor([[1, 2], [3, 1]])
    expected = F.ctc_loss(model.layer(x).log_softmax(-1), targets, [6, 4], [2, 1], reduction=reduction)
    (gradient,) = torch.autograd.grad(expected, model.layer.weight)
    before = model.layer.weight.detach().clone()
    loss = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))(x, targets)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(model.layer.weight.detach(), before - gradient)


@pytest.mark.parametrize("loss", [lambda p, t: F.ctc_loss(p, t, [1], [1], 0, "none"), lambda p, t: torch.ctc_loss(p, t, [1], [1], 0, 0)])
def test_an_unreduced_ctc_loss_is_refused(loss):
    with pytest.raises(poptorch.Error, match="ctc_loss with reduction='none'"):
        poptorch.inferenceModel(lambda p, t: loss(p, t))(torch.zeros(1, 1, 4), torch.tensor([[1]]))


def test_losses_of_torch_itself_count():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, y):
            return torch.binary_cross_entropy_with_logits(self.w, y, None, None, 1)  # 1: the mean

    model = Model()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    torch.testing.assert_close(executor(torch.tensor([0.0, 1.0])), torch.tensor(2.0).log())
    assert model.w.tolist() == [-0.25, 0.25]  # gradient (sigmoid(0) - y) / 2


def test_ctc_loss_of_impossible_targets_may_be_zero():
    def forward(p, t):
        return F.ctc_loss(p, t, [1], [3], reduction="sum", zero_infinity=True)  # three labels in one step

    executor = poptorch.inferenceModel(forward)
    assert executor(torch.zeros(1, 1, 4), torch.tensor([[1, 2, 3]])).item() == 0
