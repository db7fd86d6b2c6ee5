"""Proxy Norm against its equation in float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from models.proxy_norm import NUM_QUANTILES, ProxyNormAct, gaussian_quantiles, proxy_norm_activation, proxy_statistics

EPSILON = 0.03


def equation(y, weight, bias, proxy_weight, proxy_bias, quantiles):
    """The definition, written down: z = act(w y + b); out = (z - mu) / sqrt(var + 0.03) over act(w ((1 + w') g + b') + b)."""
    shape = (1, -1, *([1] * (y.dim() - 2)))
    z = F.silu(weight.view(shape) * y + bias.view(shape))
    proxy = F.silu(weight[:, None] * ((1 + proxy_weight[:, None]) * quantiles + proxy_bias[:, None]) + bias[:, None])
    mean, variance = proxy.mean(1), proxy.var(1, unbiased=False)
    return (z - mean.view(shape)) / torch.sqrt(variance + EPSILON).view(shape)


def draw(generator, channels=3):
    y = torch.randn(2, channels, 2, 3, dtype=torch.float64, generator=generator)
    parameters = [torch.randn(channels, dtype=torch.float64, generator=generator) for _ in range(4)]
    return [y, *parameters]


def test_quantiles_are_the_gaussians_mid_points():
    quantiles = gaussian_quantiles().double()
    i = torch.arange(NUM_QUANTILES, dtype=torch.float64)
    expected = 2**0.5 * torch.erfinv(2 * (i + 0.5) / NUM_QUANTILES - 1)
    torch.testing.assert_close(quantiles, expected, atol=1e-6, rtol=1e-6)  # float32 in between
    assert abs(quantiles.mean()) < 1e-6


def test_matches_the_equation_in_float64(generator):
    y, *parameters = draw(generator)
    weight, bias = parameters[:2]
    x = weight.view(1, -1, 1, 1) * y + bias.view(1, -1, 1, 1)
    ours = proxy_norm_activation(x, *parameters, gaussian_quantiles().double(), EPSILON)
    torch.testing.assert_close(ours, equation(y, *parameters, gaussian_quantiles().double()), atol=1e-12, rtol=1e-12)


def test_gradients_pass_gradcheck(generator):
    inputs = [value.requires_grad_() for value in draw(generator)]
    quantiles = gaussian_quantiles().double()
    assert torch.autograd.gradcheck(lambda *values: proxy_norm_activation(*values, quantiles, EPSILON), inputs)


def test_gradients_are_those_of_the_equation(generator):
    y, *parameters = (value.requires_grad_() for value in draw(generator))
    quantiles = gaussian_quantiles().double()
    shape = (1, -1, 1, 1)
    x = parameters[0].view(shape) * y + parameters[1].view(shape)
    target = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((proxy_norm_activation(x, *parameters, quantiles, EPSILON) * target).sum(), [y, *parameters])
    theirs = torch.autograd.grad((equation(y, *parameters, quantiles) * target).sum(), [y, *parameters])
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-11, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(-3, 3), shift=st.floats(-3, 3))
def test_statistics_are_those_of_many_samples(scale, shift):
    """Quantiles against a fine trapezoid over the Gaussian density."""
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2)
    density = density / density.sum()
    values = F.silu(scale * grid + shift)
    mean = (values * density).sum()
    variance = ((values - mean).square() * density).sum()
    scales, shifts = torch.tensor([scale], dtype=torch.float64), torch.tensor([shift], dtype=torch.float64)
    ours, inverse, _ = proxy_statistics(scales, shifts, gaussian_quantiles().double(), EPSILON)
    # 200 quantiles leave out the tails: about 1 % of the deviation.
    assert abs(ours - mean) < 0.02
    assert abs(1 / inverse**2 - EPSILON - variance) < 0.05 + 0.02 * variance


def test_module_at_initialisation_normalises_gaussian_inputs(generator):
    """With unit parameters, a normalised Gaussian input comes out with mean 0 and variance v / (v + 0.03), v that of its swish."""
    module = ProxyNormAct(4, num_groups=1, norm_epsilon=1e-3, proxy_epsilon=EPSILON)
    out = module(torch.randn(8, 4, 64, 64, generator=generator))
    variance = F.silu(torch.randn(10**6, generator=generator)).var()
    assert abs(out.mean()) < 0.01
    assert abs(out.var() - variance / (variance + EPSILON)) < 0.02


def test_statistics_are_float32_for_half_weights():
    module = ProxyNormAct(2, 1, 1e-3, EPSILON).half()
    wide = ProxyNormAct(2, 1, 1e-3, EPSILON)
    x = torch.randn(1, 2, 4, 4)
    weights = (module.weight, module.bias, module.proxy_weight, module.proxy_bias, module.quantiles)
    ours = proxy_norm_activation(x, *[w.float() for w in weights], EPSILON)
    theirs = proxy_norm_activation(x, wide.weight, wide.bias, wide.proxy_weight, wide.proxy_bias, wide.quantiles, EPSILON)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=2e-3)  # only the quantiles were rounded to half
