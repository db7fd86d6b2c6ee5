"""Proxy Norm: activations normalised against a Gaussian proxy variable (arXiv 2106.03743)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Tuple

import torch
from torch import nn
from torch.nn import functional as F
from typing_extensions import Literal

from .float32 import float32_buffers
from .group_norm import group_norm

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


def _differentiated(
    weight: torch.Tensor,
    bias: torch.Tensor,
    proxy_weight: torch.Tensor,
    proxy_bias: torch.Tensor,
    quantiles: torch.Tensor,
    epsilon: float,
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mu [C] and rho [C] of the proxy, and their derivatives by weight, bias, proxy_weight and proxy_bias: [2, 4, C].

    All of it follows from parameters alone and is done in the forward pass, so it can be computed once for each weight update instead of
    once for each micro batch.
    """
    # weight * ((1 + proxy_weight) g + proxy_bias) + bias
    scale = weight * (1 + proxy_weight)
    shift = torch.addcmul(bias, weight, proxy_bias)
    mean, inverse_deviation, derivatives = proxy_statistics(scale, shift, quantiles, epsilon)
    ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
    scale_by = torch.stack([1 + proxy_weight, zeros, weight, zeros])  # by weight, bias, proxy_weight, proxy_bias
    shift_by = torch.stack([proxy_bias, ones, zeros, weight])
    by_parameters = torch.einsum("oic,ipc->opc", derivatives, torch.stack([scale_by, shift_by]))
    return mean, inverse_deviation, by_parameters


class _ScaledActivation(torch.autograd.Function):
    """(swish(x) - mu) * rho, with mu and rho from the norm's and the proxy's parameters.

    For the backward pass it keeps x and its output, which the next layer keeps anyway; swish(x) and what lies between are not kept. The
    backward pass needs two sums over each channel and one product with a [4, 2, C] table.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *proxy: Any) -> torch.Tensor:
        mean, inverse_deviation, by_parameters = _differentiated(*proxy)
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


class _CentredActivation(torch.autograd.Function):
    """swish(x) - mu over the image and rho beside it, for a product that comes later; only x is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *proxy: Any) -> Tuple[torch.Tensor, torch.Tensor]:
        mean, inverse_deviation, by_parameters = _differentiated(*proxy)
        table = torch.stack([-by_parameters[0], by_parameters[1]], dim=1)  # d loss / d mu = -sum(grad)
        ctx.save_for_backward(x, table)
        return F.silu(x).sub_(_over_channels(mean.to(x.dtype), x)), inverse_deviation

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[Any, ...]:
        gradient, into_deviation = gradients
        x, table = ctx.saved_tensors
        total = gradient.sum([dim for dim in range(x.dim()) if dim != 1], dtype=table.dtype)
        into_parameters = (table * torch.stack([total, into_deviation])).sum(dim=1).unbind(dim=0)
        return (torch.ops.aten.silu_backward(gradient, x), *into_parameters, None, None)


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
    return _ScaledActivation.apply(x, weight, bias, proxy_weight, proxy_bias, quantiles, epsilon)


def centred_activation(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    proxy_weight: torch.Tensor,
    proxy_bias: torch.Tensor,
    quantiles: torch.Tensor,
    epsilon: float,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """The two parts of `proxy_norm_activation`, not multiplied yet: swish(x) - mu of shape [N, C, ...], and rho [C] in float."""
    return _CentredActivation.apply(x, weight, bias, proxy_weight, proxy_bias, quantiles, epsilon)


class ProxyNormAct(nn.Module):
    """Layer or group norm, swish, and Proxy Norm of x [N, C, H, W].

    y = norm(x), z = swish(weight * y + bias), out = (z - mu) * rho with mu and rho of `proxy_norm_activation`. Statistics are float32.

    Attributes:
        scale: what becomes of rho: "applied" as above; "returned": the result is the pair (z - mu, rho) for a module that multiplies later;
            "dropped": the result is z - mu.
    """

    quantiles: torch.Tensor

    def __init__(self, channels: int, num_groups: int, norm_epsilon: float, proxy_epsilon: float, is_strided: bool = False) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.norm_epsilon = norm_epsilon
        self.proxy_epsilon = proxy_epsilon
        self.is_strided = is_strided
        self.scale: Literal["applied", "returned", "dropped"] = "applied"
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.proxy_weight = nn.Parameter(torch.zeros(channels))
        self.proxy_bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("quantiles", gaussian_quantiles(), persistent=False)

    def _apply(self, fn: Any, *arguments: Any) -> nn.Module:
        with float32_buffers(self):
            return super()._apply(fn, *arguments)

    def forward(self, x: torch.Tensor) -> Any:
        """Normalise, activate, normalise against the proxy: as `scale` says."""
        normalised = group_norm(x, self.num_groups, self.weight, self.bias, self.norm_epsilon, self.is_strided)
        parameters = (self.weight, self.bias, self.proxy_weight, self.proxy_bias)
        weight, bias, proxy_weight, proxy_bias = (values.float() for values in parameters)
        proxy = (weight, bias, proxy_weight, proxy_bias, self.quantiles.float(), self.proxy_epsilon)
        if self.scale == "applied":
            return proxy_norm_activation(normalised, *proxy)
        centred, inverse_deviation = centred_activation(normalised, *proxy)
        return (centred, inverse_deviation) if self.scale == "returned" else centred

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.weight.numel()}, num_groups={self.num_groups}, norm_epsilon={self.norm_epsilon}, scale={self.scale}"
