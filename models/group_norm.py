"""Group norm, with a choice of which channels share a group."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional as F

# An operator of its own, as torch's group norm is one: whoever records a forward pass sees a norm, not the sums and products it is made of.
_library = torch.library.Library("g16", "DEF")
_library.define(
    "strided_group_norm(Tensor input, Tensor weight, Tensor bias, int N, int C, int HxW, int group, float eps) -> (Tensor, Tensor, Tensor)"
)


def _strided_group_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, samples: int, channels: int, pixels: int, groups: int, epsilon: float
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weight * (x - mean) / sqrt(var + epsilon) + bias; also mean and 1 / sqrt(var + epsilon), [samples, groups].

    Moments of every channel come from torch's kernel and are combined: the variance of a group is the mean of its channels' variances plus
    the variance of their means.
    """
    normalised, mean, inverse = torch.native_group_norm(x, None, None, samples, channels, pixels, channels, epsilon)
    mean, inverse = _by_group(mean, groups), _by_group(inverse, groups)
    group_mean = mean.mean(1, keepdim=True)
    variance = (inverse.pow(-2) - epsilon + (mean - group_mean).square()).mean(1, keepdim=True)
    group_inverse = torch.rsqrt(variance.clamp(min=0) + epsilon)
    scale = group_inverse * weight.view(-1, groups)
    shift = (mean - group_mean) * scale + bias.view(-1, groups)
    out = normalised.mul_(_over_pixels(scale / inverse, x)).add_(_over_pixels(shift, x))
    return out, group_mean.squeeze(1), group_inverse.squeeze(1)


_library.impl("strided_group_norm", _strided_group_norm, "CompositeExplicitAutograd")


def _by_group(values: torch.Tensor, groups: int) -> torch.Tensor:
    """[N, C] as [N, C / groups, groups], at least float32: channels with the same last index share a group."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).view(values.shape[0], -1, groups)


def _over_pixels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[N, C / groups, groups] shaped to broadcast over x [N, C, ...]."""
    return values.reshape(*x.shape[:2], *([1] * (x.dim() - 2)))


def _sums_over_pixels(
    gradient: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Sums of the gradient g and of g (x - mean) * inverse over the pixels of each channel: [N, C / groups, groups] each.

    They are what torch's backward pass gives for shift and scale where every channel of every sample is a channel, in one pass over both.
    """
    samples, channels = x.shape[:2]
    rows = samples * channels
    shape = (samples, channels // mean.shape[1], mean.shape[1])
    by_row = [values[:, None].expand(shape).reshape(1, rows) for values in (mean, inverse)]
    flat = [values.reshape(1, rows, -1) for values in (gradient, x)]
    ones = torch.ones_like(by_row[0][0])
    pixels = flat[0].shape[2]
    _, correlation, total = torch.ops.aten.native_group_norm_backward(*flat, *by_row, ones, 1, rows, pixels, rows, [False, True, True])
    return total.view(shape), correlation.view(shape)


class _StridedGroupNorm(torch.autograd.Function):
    """The operator with its derivatives; x and the statistics are kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, epsilon: float) -> torch.Tensor:
        samples, channels = x.shape[:2]
        x = x.contiguous()
        shape = (samples, channels, x[0, 0].numel(), groups)
        out, mean, inverse = torch.ops.g16.strided_group_norm(x, weight, bias, *shape, epsilon)
        ctx.groups, ctx.dtype = groups, x.dtype
        ctx.save_for_backward(x, weight, mean, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Tuple[Any, ...]:
        """With n = (x - mean) * inverse and sums over a group: dx = inverse * (w g - mean(w g) - n mean(w g n))."""
        (gradient,) = gradients
        x, weight, mean, inverse = ctx.saved_tensors
        groups, dtype = ctx.groups, mean.dtype
        x, gradient = x.to(dtype), gradient.to(dtype)
        total, correlation = _sums_over_pixels(gradient, x, mean, inverse)  # of g and of g n
        mean, inverse, weights = mean[:, None], inverse[:, None], weight.to(dtype).view(-1, groups)
        count = total.shape[1] * x[0, 0].numel()
        slope = -inverse * inverse * (weights * correlation).sum(1, keepdim=True) / count
        constant = -inverse * (weights * total).sum(1, keepdim=True) / count - slope * mean
        slope, constant, factor = (_over_pixels(values.expand_as(total), x) for values in (slope, constant, inverse * weights))
        into_x = (x * slope).add_(constant).addcmul_(gradient, factor).to(ctx.dtype)
        into_weight, into_bias = (values.sum(0).flatten().to(weight.dtype) for values in (correlation, total))
        return into_x, into_weight, into_bias, None, None


def group_norm(
    x: torch.Tensor, num_groups: int, weight: torch.Tensor, bias: Optional[torch.Tensor], epsilon: float, is_strided: bool
) -> torch.Tensor:
    """Group norm of x [N, C, ...]: weight * (x - mean) / sqrt(var + epsilon) + bias, moments over the pixels and channels of a group.

    Of G groups, channel c belongs to group c mod G where `is_strided`, as in TensorFlow's operator for IPUs, else to group c // (C / G), as
    in PyTorch, whose operator it then is.
    """
    if not is_strided or num_groups == 1:
        return F.group_norm(x, num_groups, weight, bias, epsilon)
    shift = torch.zeros_like(weight) if bias is None else bias
    return _StridedGroupNorm.apply(x, weight.to(x.dtype), shift.to(x.dtype), num_groups, epsilon)


class GroupNorm(nn.GroupNorm):
    """torch's group norm with a choice of channels (`group_norm`), and of a shift or none."""

    def __init__(self, num_groups: int, num_channels: int, eps: float, is_strided: bool = False, has_shift: bool = True) -> None:
        super().__init__(num_groups, num_channels, eps=eps)
        self.is_strided = is_strided
        if not has_shift:
            self.bias = None  # type: ignore[assignment]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] to the same."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps, self.is_strided)
