"""Proxy Norm: activations normalised against a Gaussian proxy variable (arXiv 2106.03743)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Tuple

import torch
from torch import nn
from torch.nn import functional as F

from .float32 import float32_buffers

NUM_QUANTILES = 200  # as in the paper's implementation


def gaussian_quantiles(count: int = NUM_QUANTILES) -> torch.Tensor:
    """Mid-point quantiles of the unit Gaussian, g_i = Phi^-1((i + 0.5) / count): float32 [count]."""
    return torch.tensor([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


def proxy_statistics(
    scale: torch.Tensor, shift: torch.Tensor, quantiles: torch.Tensor, epsilon: float
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and inverse standard deviation of p = swish(scale * g + shift) over Gaussian quantiles g, with their derivatives.

    Args:
        scale, shift: float [C].
        quantiles: float [N].
        epsilon: added to the population variance.

    Returns:
        mu [C]; rho = 1 / sqrt(var + epsilon) [C]; and derivatives [2, 2, C], of (mu, rho) by (scale, shift):
        d mu = mean(p'), d rho = -rho^3 mean((p - mu) p'), each times g for the scale.
    """
    weights = torch.stack([quantiles, torch.ones_like(quantiles)], dim=1) / quantiles.numel()  # means: by scale, by shift
    x = torch.addcmul(shift[:, None], scale[:, None], quantiles)
    sigmoid = torch.sigmoid(x)
    proxy = x * sigmoid
    slope = sigmoid + proxy * (1 - sigmoid)  # swish'(x)
    mean = proxy.mean(dim=1)
    centred = proxy - mean[:, None]
    inverse_deviation = torch.rsqrt(centred.square().mean(dim=1) + epsilon)
    mean_derivative = (slope @ weights).t()
    deviation_derivative = -inverse_deviation.pow(3) * ((centred * slope) @ weights).t()
    return mean, inverse_deviation, torch.stack([mean_derivative, deviation_derivative])


class _ProxyNormActivation(torch.autograd.Function):
    """(swish(x) - mu) * rho, with mu and rho from the norm's and the proxy's parameters.

    For the backward pass it keeps x and its output, which the next layer keeps anyway; swish(x) and what lies between are not kept. What is
    over [C, N] depends on parameters alone and is done in the forward pass, derivatives included, so it can be computed once for each
    weight update instead of once for each micro batch; the backward pass needs two sums over each channel and one product with a
    [4, 2, C] table.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        proxy_weight: torch.Tensor,
        proxy_bias: torch.Tensor,
        quantiles: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        # weight * ((1 + proxy_weight) g + proxy_bias) + bias
        scale = weight * (1 + proxy_weight)
        shift = torch.addcmul(bias, weight, proxy_bias)
        mean, inverse_deviation, derivatives = proxy_statistics(scale, shift, quantiles, epsilon)
        ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
        scale_by = torch.stack([1 + proxy_weight, zeros, weight, zeros])  # by weight, bias, proxy_weight, proxy_bias
        shift_by = torch.stack([proxy_bias, ones, zeros, weight])
        by_parameters = torch.einsum("oic,ipc->opc", derivatives, torch.stack([scale_by, shift_by]))  # of (mu, rho)
        # d loss / d mu = -rho sum(grad), d loss / d rho = sum(grad (swish(x) - mu)) = sum(grad out) / rho
        table = torch.stack([-inverse_deviation * by_parameters[0], by_parameters[1] / inverse_deviation], dim=1)
        centre, multiplier = _over_channels(mean.to(x.dtype), x), _over_channels(inverse_deviation.to(x.dtype), x)
        out = F.silu(x).sub_(centre).mul_(multiplier)  # in place: a fresh tensor for each pass costs more than the pass
        ctx.save_for_backward(x, out, inverse_deviation, table)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[Any, ...]:
        (gradient,) = gradients
        x, out, inverse_deviation, table = ctx.saved_tensors
        over_samples = [dim for dim in range(x.dim()) if dim != 1]
        total = gradient.sum(over_samples, dtype=table.dtype)
        correlation = (gradient * out).sum(over_samples, dtype=table.dtype)
        into_parameters = (table * torch.stack([total, correlation])).sum(dim=1).unbind(dim=0)
        into_x = torch.ops.aten.silu_backward(gradient, x).mul_(_over_channels(inverse_deviation.to(x.dtype), x))
        return (into_x, *into_parameters, None, None)


def _over_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[C] shaped to broadcast over [N, C, ...]."""
    return values.view(-1, *([1] * (x.dim() - 2)))


def proxy_norm_activation(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    proxy_weight: torch.Tensor,
    proxy_bias: torch.Tensor,
    quantiles: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Proxy-normalised swish of a norm's output: (swish(x) - mu) * rho, x = weight * y + bias of shape [N, C, ...].

    mu and rho are those of swish(weight * ((1 + proxy_weight) g + proxy_bias) + bias); gradients flow through them to all four
    parameters, float [C].
    """
    return _ProxyNormActivation.apply(x, weight, bias, proxy_weight, proxy_bias, quantiles, epsilon)


class ProxyNormAct(nn.Module):
    """Layer or group norm, swish, and Proxy Norm: [N, C, H, W] to the same.

    y = norm(x), z = swish(weight * y + bias), out = (z - mu) * rho with mu and rho of `proxy_norm_activation`. Statistics are float32.
    """

    quantiles: torch.Tensor

    def __init__(self, channels: int, num_groups: int, norm_epsilon: float, proxy_epsilon: float) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.norm_epsilon = norm_epsilon
        self.proxy_epsilon = proxy_epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.proxy_weight = nn.Parameter(torch.zeros(channels))
        self.proxy_bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("quantiles", gaussian_quantiles(), persistent=False)

    def _apply(self, fn: Any, *arguments: Any) -> nn.Module:
        with float32_buffers(self):
            return super()._apply(fn, *arguments)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, activate, normalise against the proxy."""
        normalised = F.group_norm(x, self.num_groups, self.weight, self.bias, self.norm_epsilon)
        parameters = (self.weight, self.bias, self.proxy_weight, self.proxy_bias)
        weight, bias, proxy_weight, proxy_bias = (values.float() for values in parameters)
        return proxy_norm_activation(normalised, weight, bias, proxy_weight, proxy_bias, self.quantiles.float(), self.proxy_epsilon)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.weight.numel()}, num_groups={self.num_groups}, norm_epsilon={self.norm_epsilon}"
