"""Proxy Norm against its equation in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from models.proxy_norm import (
    NUM_QUANTILES,
    ProxyNormAct,
    centred_activation,
    gaussian_quantiles,
    proxy_norm_activation,
    proxy_statistics,
)

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


def test_the_two_parts_multiplied_are_the_whole(generator):
    x, *parameters = draw(generator)
    proxy = (*parameters, gaussian_quantiles().double(), EPSILON)
    centred, scale = centred_activation(x, *proxy)
    torch.testing.assert_close(centred * scale.view(1, -1, 1, 1), proxy_norm_activation(x, *proxy), atol=1e-12, rtol=1e-12)


def test_gradients_of_both_parts_pass_gradcheck(generator):
    inputs = [value.requires_grad_() for value in draw(generator)]
    quantiles = gaussian_quantiles().double()
    assert torch.autograd.gradcheck(lambda *values: centred_activation(*values, quantiles, EPSILON), inputs)
    assert torch.autograd.gradcheck(lambda *values: centred_activation(*values, quantiles, EPSILON)[0], inputs)


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


@pytest.mark.skipif(torch.__version__.startswith("2.0."), reason="torch 2.0 has no group norm of half tensors on the CPU")
def test_half_module_computes_the_float32_modules_values(generator):
    """Half input and half weights against the equation in float64: what is left is the rounding of the input, of x and of the output."""
    module = ProxyNormAct(6, num_groups=2, norm_epsilon=1e-3, proxy_epsilon=EPSILON)
    with torch.no_grad():
        for values in module.parameters():
            values.add_(0.3 * torch.randn(values.shape, generator=generator))
    module.half()
    images = torch.randn(3, 6, 5, 7, generator=generator).half()
    parameters = [values.detach().double() for values in (module.weight, module.bias, module.proxy_weight, module.proxy_bias)]
    normalised = F.group_norm(images.double(), 2, eps=1e-3)
    out = module(images)
    assert out.dtype == torch.float16
    # Three roundings of 2^-11 of values up to 4 on the way, times rho below 1 / sqrt(0.03) = 5.8, typically 2.
    torch.testing.assert_close(out.double(), equation(normalised, *parameters, gaussian_quantiles().double()), atol=8e-3, rtol=0)


def test_statistics_of_half_weights_are_those_of_the_same_weights_in_float32(generator):
    """On float32 input nothing but the weights is half: the quantiles must not be rounded (9e-4 of a deviation where they are)."""
    half, wide = ProxyNormAct(4, 1, 1e-3, EPSILON).half(), ProxyNormAct(4, 1, 1e-3, EPSILON)
    with torch.no_grad():
        for mine, other in zip(half.parameters(), wide.parameters()):
            mine.add_(torch.randn(mine.shape, generator=generator).half())
            other.copy_(mine)
    x = torch.randn(2, 4, 4, 4, generator=generator)
    weights = [[w.float() for w in (module.weight, module.bias, module.proxy_weight, module.proxy_bias)] for module in (half, wide)]
    ours, theirs = (proxy_norm_activation(x, *values, module.quantiles.float(), EPSILON) for values, module in zip(weights, (half, wide)))
    assert torch.equal(ours, theirs)
