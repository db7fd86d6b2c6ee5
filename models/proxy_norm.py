"""Proxy Norm: activations normalised against a Gaussian proxy variable (arXiv 2106.03743)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Callable, Tuple

import torch
from torch import nn
from torch.nn import functional as F

NUM_QUANTILES = 200  # as in the paper's implementation


def gaussian_quantiles(count: int = NUM_QUANTILES) -> torch.Tensor:
    """Mid-point quantiles of the unit Gaussian, g_i = Phi^-1((i + 0.5) / count): float32 [count]."""
    return torch.tensor([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


def proxy_statistics(
    scale: torch.Tensor, shift: torch.Tensor, quantiles: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor], epsilon: float
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Mean and inverse standard deviation of act(scale * g + shift) over Gaussian quantiles g.

    Args:
        scale, shift: float32 [C].
        quantiles: float32 [N].

    Returns:
        mu and rho = 1 / sqrt(var + epsilon), each float32 [C]; the variance is the population's.
    """
    proxy = activation(torch.addcmul(shift[:, None], scale[:, None], quantiles))
    mean = proxy.mean(dim=1)
    variance = (proxy - mean[:, None]).square().mean(dim=1)
    return mean, torch.rsqrt(variance + epsilon)


class _NormaliseActivation(torch.autograd.Function):
    """(swish(x) - mu) * rho, which keeps x for the backward pass and computes swish(x) anew there."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mean: torch.Tensor, inverse_deviation: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, mean, inverse_deviation)
        scale = inverse_deviation.to(x.dtype)
        shift = (-mean * inverse_deviation).to(x.dtype)
        return torch.addcmul(_over_channels(shift, x), F.silu(x), _over_channels(scale, x))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        (gradient,) = gradients
        x, mean, inverse_deviation = ctx.saved_tensors
        activated = F.silu(x)
        over_samples = [dim for dim in range(x.dim()) if dim != 1]
        total = gradient.sum(over_samples, dtype=torch.float32)
        correlation = (gradient * activated).sum(over_samples, dtype=torch.float32)
        into_activation = gradient * _over_channels(inverse_deviation.to(x.dtype), x)
        return (
            torch.ops.aten.silu_backward(into_activation, x),
            -inverse_deviation * total,
            correlation - mean * total,
        )


def _over_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[C] shaped to broadcast over [N, C, ...]."""
    return values.view(-1, *([1] * (x.dim() - 2)))


class ProxyNormAct(nn.Module):
    """Layer or group norm, swish, and Proxy Norm: [N, C, H, W] to the same.

    y = norm(x), z = swish(weight * y + bias), out = (z - mu) * rho with mu and rho from `proxy_statistics` of
    weight * ((1 + proxy_weight) * g + proxy_bias) + bias. Statistics are float32, and gradients flow through mu and rho.
    """

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, activate, normalise against the proxy."""
        normalised = F.group_norm(x, self.num_groups, self.weight, self.bias, self.norm_epsilon)
        weight, bias = self.weight.float(), self.bias.float()
        scale = weight * (1 + self.proxy_weight.float())
        shift = torch.addcmul(bias, weight, self.proxy_bias.float())
        mean, inverse_deviation = proxy_statistics(scale, shift, self.quantiles.float(), F.silu, self.proxy_epsilon)
        return _NormaliseActivation.apply(normalised, mean, inverse_deviation)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, num_groups={self.num_groups}, norm_epsilon={self.norm_epsilon}"
