"""Sections 18.7 and 18.11: random numbers drawn inside forward, and integers of 32 bits as indices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poptorch

# ---- random numbers


def moments(function, x, count=4):
    """Mean and standard deviation of what a function draws, over calls of one executor that must differ."""
    executor = poptorch.inferenceModel(function, poptorch.Options().randomSeed(7))
    draws = [executor(x.clone()) for _ in range(count)]
    assert draws[0].dtype == x.dtype and not torch.equal(draws[0], draws[1])
    values = torch.stack(draws).double()
    return values.mean().item(), values.std().item()


FILLS = {
    "uniform_": (lambda x: x.uniform_(2, 4), 3, 2 / 12**0.5),
    "normal_": (lambda x: x.normal_(1, 2), 1, 2),
    "random_ to": (lambda x: x.random_(4), 1.5, (15 / 12) ** 0.5),  # 0, 1, 2, 3
    "random_ from to": (lambda x: x.random_(2, 6), 3.5, (15 / 12) ** 0.5),
    "bernoulli_": (lambda x: x.bernoulli_(0.25), 0.25, 0.1875**0.5),
    "exponential_": (lambda x: x.exponential_(2), 0.5, 0.5),
    "bernoulli": (lambda x: torch.bernoulli(x * 0 + 0.25), 0.25, 0.1875**0.5),
    "normal of a mean": (lambda x: torch.normal(x * 0 + 1, 2.0), 1, 2),
    "normal of a deviation": (lambda x: torch.normal(1.0, x * 0 + 2), 1, 2),
    "normal of both": (lambda x: torch.normal(x * 0 + 1, x * 0 + 2), 1, 2),
    "Normal": (lambda x: torch.distributions.Normal(x * 0 + 1, x * 0 + 2).sample(), 1, 2),
    "Uniform": (lambda x: torch.distributions.Uniform(x * 0 + 2, x * 0 + 4).sample(), 3, 2 / 12**0.5),
    "Bernoulli": (lambda x: torch.distributions.Bernoulli(x * 0 + 0.25).sample(), 0.25, 0.1875**0.5),
    "Exponential": (lambda x: torch.distributions.Exponential(x * 0 + 2).sample(), 0.5, 0.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", FILLS)
def test_random_numbers_have_their_moments(name, dtype):
    function, mean, deviation = FILLS[name]
    x = torch.ones(5000, dtype=dtype)
    for drawn in (moments(function, x), moments(lambda x: function(x * 1), x)):  # an input, and a value in between
        assert abs(drawn[0] - mean) < 0.06 * max(deviation, 1)  # 20,000 numbers: 8 deviations of their mean
        assert abs(drawn[1] - deviation) < 0.06 * max(deviation, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("a", "b"), [(-1.0, 1.0), (1.5, 3.0)])  # torch rejects the first in one way, the second in another
def test_truncated_normal_numbers(a, b, dtype):
    executor = poptorch.inferenceModel(lambda x: nn.init.trunc_normal_(torch.empty_like(x), 0.0, 1.0, a, b))
    drawn = executor(torch.zeros(20000, dtype=dtype)).double()
    phi = [math.exp(-bound * bound / 2) / math.sqrt(2 * math.pi) for bound in (a, b)]
    share = (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2
    assert a <= drawn.min().item() and drawn.max().item() <= b
    assert abs(drawn.mean().item() - (phi[0] - phi[1]) / share) < 0.03  # 20,000 numbers: 7 deviations of their mean
    assert nn.init.trunc_normal_(torch.empty(9), 0.0, 1.0, 1.0, 1.5).min() >= 1  # the host's own is as it was


@pytest.mark.parametrize("fill", [lambda x: x.random_(3, 7), lambda x: torch.randint(3, 7, tuple(x.shape))])
def test_random_integers(fill):
    values = poptorch.inferenceModel(lambda x: fill(x))(torch.zeros(500, dtype=torch.int32))
    assert values.dtype == torch.int32 and set(values.tolist()) == {3, 4, 5, 6}
    assert sorted(poptorch.inferenceModel(lambda x: torch.randperm(6) + x)(torch.zeros(6)).tolist()) == list(range(6))


# ---- integers of 32 bits

INDEXED = {
    "index_fill": lambda x, i: x.index_fill(0, i, 9.0),
    "index_copy": lambda x, i: x.index_copy(0, i, x[:2] * 2),
    "index_add": lambda x, i: x.index_add(0, i, x[:2]),
    "index_add_": lambda x, i: x.clone().index_add_(dim=0, index=i, source=x[:2]),
    "index_select": lambda x, i: x.index_select(0, i),
    "index_put_": lambda x, i: x.clone().index_put_((i,), x[0]),
    "setitem": lambda x, i: x * 1 if x.__setitem__(i, 5.0) is None else x,
    "put_": lambda x, i: x.clone().put_(i, x.flatten()[:2]),
    "take": lambda x, i: torch.take(x, i),
    "take_along_dim": lambda x, i: torch.take_along_dim(x, i.view(2, 1), 0),
    "gather": lambda x, i: x.gather(0, i.view(2, 1)),
    "scatter": lambda x, i: x.scatter(0, i.view(2, 1), 7.0),
    "scatter_add": lambda x, i: torch.scatter_add(x, 0, i.view(2, 1), x),
    "scatter_reduce": lambda x, i: x.scatter_reduce(0, i.view(2, 1), x, "sum"),
    "embedding": lambda x, i: F.embedding(i, x),
    "cross_entropy": lambda x, i: F.cross_entropy(x[:2], i),
    "nll_loss": lambda x, i: F.nll_loss(x[:2], target=i),
    "multi_margin_loss": lambda x, i: F.multi_margin_loss(x[:2], i),
    "multilabel_margin_loss": lambda x, i: F.multilabel_margin_loss(x[:2, :2], i.view(1, 2).expand(2, 2)),
    "one_hot": lambda x, i: F.one_hot(i, num_classes=3),
}


@pytest.mark.parametrize("name", INDEXED)
def test_every_index_may_have_32_bits(name):
    x, index = torch.arange(9.0).view(3, 3), torch.tensor([1, 0])
    result = poptorch.inferenceModel(INDEXED[name])(x.clone(), index.to(torch.int32))
    torch.testing.assert_close(result, INDEXED[name](x.clone(), index), check_dtype=False)
