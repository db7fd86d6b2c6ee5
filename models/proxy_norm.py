"""Proxy Norm: activations normalised against a Gaussian proxy variable (arXiv 2106.03743)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Tuple

import torch
from torch import nn
from torch.nn import functional as F

NUM_QUANTILES = 200  # as in the paper's implementation


def gaussian_quantiles(count: int = NUM_QUANTILES) -> torch.Tensor:
    """Mid-point quantiles of the unit Gaussian, g_i = Phi^-1((i + 0.5) / count): float32 [count]."""
    return torch.tensor([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


class ProxyStatistics:
    """Mean mu and inverse standard deviation rho of p = swish(scale * g + shift) over Gaussian quantiles g; float [C] both.

    mu = mean(p), rho = 1 / sqrt(mean((p - mu)^2) + epsilon).

    Args:
        scale, shift: float [C].
        quantiles: float [N].
        epsilon: added to the population variance.
    """

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor, quantiles: torch.Tensor, epsilon: float) -> None:
        self._quantiles = quantiles
        x = torch.addcmul(shift[:, None], scale[:, None], quantiles)
        self._sigmoid = torch.sigmoid(x)
        self._proxy = x * self._sigmoid
        self.mean = self._proxy.mean(dim=1)
        self._centred = self._proxy - self.mean[:, None]
        self.inverse_deviation = torch.rsqrt(self._centred.square().mean(dim=1) + epsilon)

    def derivatives(self) -> torch.Tensor:
        """Of (mu, rho) by (scale, shift), [2, 2, C]: d mu = mean(p'), d rho = -rho^3 mean((p - mu) p'), each times g for the scale."""
        means = torch.stack([self._quantiles, torch.ones_like(self._quantiles)], dim=1) / self._quantiles.numel()  # by scale, by shift
        slope = self._sigmoid + self._proxy * (1 - self._sigmoid)  # swish'(x)
        mean_derivative = (slope @ means).t()
        deviation_derivative = -self.inverse_deviation.pow(3) * ((self._centred * slope) @ means).t()
        return torch.stack([mean_derivative, deviation_derivative])


class _ProxyNormActivation(torch.autograd.Function):
    """(swish(x) - mu) * rho, with mu and rho from the norm's and the proxy's parameters.

    For the backward pass it keeps x and its output, which the next layer keeps anyway; swish(x) and what lies between are not kept. What is
    over [C, N] depends on parameters alone and is done in the forward pass, derivatives included, so it can be computed once for each
    weight update instead of once for each micro batch; the backward pass needs two sums over each channel and one product with a
    [4, 2, C] table. Where the parameters need no gradients (validation, frozen layers) there is no table.
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
        proxy = ProxyStatistics(scale, shift, quantiles, epsilon)
        multiplier = _over_channels(proxy.inverse_deviation.to(x.dtype), x)
        out = F.silu(x)
        out.sub_(_over_channels(proxy.mean.to(x.dtype), x)).mul_(multiplier)  # in place: a fresh tensor for each pass costs more
        tables = (_gradient_table(proxy, weight, proxy_weight, proxy_bias),) if any(ctx.needs_input_grad[1:5]) else ()
        ctx.save_for_backward(x, out, multiplier, *tables)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[Any, ...]:
        (gradient,) = gradients
        x, out, multiplier, *tables = ctx.saved_tensors
        into_parameters: Tuple[Any, ...] = (None,) * 4
        for table in tables:
            over_samples = [dim for dim in range(x.dim()) if dim != 1]
            total = gradient.sum(over_samples, dtype=table.dtype)
            correlation = (gradient * out).sum(over_samples, dtype=table.dtype)
            into_parameters = (table * torch.stack([total, correlation])).sum(dim=1).unbind(dim=0)
        into_x = torch.ops.aten.silu_backward(gradient, x).mul_(multiplier)
        return (into_x, *into_parameters, None, None)


def _gradient_table(proxy: ProxyStatistics, weight: torch.Tensor, proxy_weight: torch.Tensor, proxy_bias: torch.Tensor) -> torch.Tensor:
    """Gradients of weight, bias, proxy_weight and proxy_bias by (sum(grad), sum(grad out)) over a channel: [4, 2, C].

    d loss / d mu = -rho sum(grad), d loss / d rho = sum(grad (swish(x) - mu)) = sum(grad out) / rho.
    """
    ones, zeros = torch.ones_like(weight), torch.zeros_like(weight)
    scale_by = torch.stack([1 + proxy_weight, zeros, weight, zeros])  # by weight, bias, proxy_weight, proxy_bias
    shift_by = torch.stack([proxy_bias, ones, zeros, weight])
    by_scale, by_shift = proxy.derivatives()[:, :, None].unbind(dim=1)  # [2, 1, C] both
    by_parameters = by_scale * scale_by + by_shift * shift_by  # of (mu, rho)
    rho = proxy.inverse_deviation
    return torch.stack([-rho * by_parameters[0], by_parameters[1] / rho], dim=1)


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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, activate, normalise against the proxy."""
        normalised = F.group_norm(x, self.num_groups, self.weight, self.bias, self.norm_epsilon)
        parameters = (self.weight, self.bias, self.proxy_weight, self.proxy_bias)
        wide = [values.float() for values in (*parameters, self.quantiles)]
        weight, bias, proxy_weight, proxy_bias, quantiles = wide
        return proxy_norm_activation(normalised, weight, bias, proxy_weight, proxy_bias, quantiles, self.proxy_epsilon)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.weight.numel()}, num_groups={self.num_groups}, norm_epsilon={self.norm_epsilon}"
