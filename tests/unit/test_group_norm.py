"""Group norm with strided groups, against torch's group norm of permuted channels."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch.nn import functional as F

import poptorch
from config import load_preset
from ipu_model.runtime.tracing.programs import trace_program
from models.factory import build_model
from models.group_norm import GroupNorm, group_norm
from models.proxy_norm import ProxyNormAct

EPSILON = 1e-3


def permuted(x, groups, weight, bias):
    """Channels 0, G, 2 G, ... first, then 1, G + 1, ...: torch's neighbouring groups are then the strided ones."""
    order = [channel for group in range(groups) for channel in range(group, x.shape[1], groups)]
    back = [order.index(channel) for channel in range(x.shape[1])]
    return F.group_norm(x[:, order], groups, weight[order], bias[order], EPSILON)[:, back]


def draw(shape, generator, dtype=torch.float64):
    channels = shape[1]
    values = torch.randn(shape, generator=generator, dtype=dtype), *(torch.randn(channels, generator=generator, dtype=dtype) for _ in "wb")
    return [value.requires_grad_() for value in values]


def test_a_group_is_every_fourth_channel():
    """Worked by hand: of 8 channels, constant at 0 to 7, in 4 groups, channels 0 and 4 share one: mean 2, variance 4; and so on."""
    x = torch.arange(8.0).view(1, 8, 1, 1)
    out = group_norm(x, 4, torch.ones(8), torch.zeros(8), 1e-9, is_strided=True).flatten()
    torch.testing.assert_close(out, torch.tensor([-1.0] * 4 + [1.0] * 4))
    neighbours = group_norm(x, 4, torch.ones(8), torch.zeros(8), 1e-9, is_strided=False).flatten()
    torch.testing.assert_close(neighbours, torch.tensor([-1.0, 1.0] * 4))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 99))
def test_values_and_gradients_are_torchs_of_permuted_channels(samples, per_group, groups, pixels, seed):
    generator = torch.Generator().manual_seed(seed)
    assume(samples * per_group * math.prod(pixels) > 1)  # torch's own refuses a group of one value
    inputs = draw((samples, per_group * groups, *pixels), generator)
    target = torch.randn(inputs[0].shape, generator=generator, dtype=torch.float64)
    ours, theirs = group_norm(inputs[0], groups, *inputs[1:], EPSILON, True), permuted(inputs[0], groups, *inputs[1:])
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-9)
    for mine, other in zip(torch.autograd.grad((ours * target).sum(), inputs), torch.autograd.grad((theirs * target).sum(), inputs)):
        torch.testing.assert_close(mine, other, atol=1e-8, rtol=1e-7)


def test_gradients_pass_gradcheck(generator):
    assert torch.autograd.gradcheck(lambda x, w, b: group_norm(x, 3, w, b, EPSILON, True), draw((2, 6, 2, 3), generator))


def test_a_large_mean_costs_no_accuracy(generator):
    """Mean 1,000 and deviation 1 in float32: E[x^2] - E[x]^2 would be off by 0.1. Channels last, too."""
    x, weight, bias = (value.detach() for value in draw((2, 8, 16, 16), generator))
    x = (x + 1000).float()
    expected = permuted(x.double(), 4, weight, bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = group_norm(x.contiguous(memory_format=layout), 4, weight.float(), bias.float(), EPSILON, True)
        torch.testing.assert_close(out.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(torch.__version__.startswith("2.0."), reason="torch 2.0 has no group norm of half tensors on the CPU")
def test_half_input_has_float32_statistics(generator):
    """Values of 300: their squares leave half's range."""
    x, weight, bias = (value.detach() for value in draw((2, 8, 8, 8), generator))
    module = GroupNorm(4, 8, EPSILON, is_strided=True).half()
    module.weight.data.copy_(weight)
    module.bias.data.copy_(bias)
    x = (300 * x).half()
    out = module(x)
    assert out.dtype == torch.float16
    expected = permuted(x.double(), 4, module.weight.double(), module.bias.double())
    torch.testing.assert_close(out.double(), expected.detach(), atol=8e-3, rtol=2e-3)  # three roundings of 2^-11 of values up to 6


class Loss(torch.nn.Module):
    """A norm and a loss."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return poptorch.identity_loss(self.norm(x).square().sum(dim=1).mean(), reduction="none")


def test_the_device_computes_the_same_and_trains_the_same(generator):
    x, weight, bias = (value.detach().float() for value in draw((4, 8, 3, 3), generator))
    model = Loss(GroupNorm(4, 8, EPSILON, is_strided=True))
    model.norm.weight.data.copy_(weight)
    model.norm.bias.data.copy_(bias)
    reference = copy.deepcopy(model)
    loss = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1))(x)
    expected = permuted(x, 4, reference.norm.weight, reference.norm.bias).square().sum(dim=1).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for mine, other in zip(model.norm.parameters(), reference.norm.parameters()):
        torch.testing.assert_close(mine.detach(), (other - 0.1 * other.grad).detach(), atol=1e-5, rtol=1e-4)


def test_the_cost_models_record_is_that_of_torchs_group_norm():
    def records(is_strided):
        model = Loss(GroupNorm(4, 8, EPSILON, is_strided)).half()
        return trace_program(model, ((torch.zeros(2, 8, 4, 4).half(),), {}), True, lambda starts: [0]).ops

    def described(ops):
        """Everything but the operators' names; tensors are numbered as they come up."""
        numbers = {}
        for op in ops:
            for tensor in (*op.reads, op.writes):
                numbers.setdefault(tensor, len(numbers))
        return [replace(op, name="", reads=tuple(map(numbers.get, op.reads)), writes=numbers[op.writes]) for op in ops]

    strided, neighbours = records(True), records(False)
    assert described(strided) == described(neighbours)
    assert [op.kind for op in strided].count("norm") == 1


@pytest.mark.parametrize("norm, proxy_norm", [("group", False), ("group", True)])
def test_the_field_reaches_every_norm_of_the_network(norm, proxy_norm, generator):
    fields = {"norm": norm, "proxy_norm": proxy_norm}
    networks = {
        grouping: build_model(load_preset("digits", {**fields, "norm_channel_grouping": grouping}).model, 10).eval()
        for grouping in ("strided", "contiguous")
    }
    for grouping, network in networks.items():
        norms = [module for module in network.modules() if isinstance(module, (GroupNorm, ProxyNormAct))]
        assert len(norms) == 1 + 15 * 3 + 2 + 1  # stem, 15 blocks of three, one of two, top
        assert {module.is_strided for module in norms} == {grouping == "strided"}
    networks["contiguous"].load_state_dict(networks["strided"].state_dict())
    images = torch.randn(1, 3, 16, 16, generator=generator)
    assert not torch.allclose(networks["strided"](images), networks["contiguous"](images), atol=1e-3)
