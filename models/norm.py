"""The one seam for normalisation: `norm_act(channels)` makes a norm together with its activation."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Set

import torch
from torch import nn
from torch.nn import functional as F

from config import ConfigError, ModelConfig

from .float32 import float32_buffers
from .group_norm import GroupNorm
from .proxy_norm import ProxyNormAct

NormAct = Callable[..., nn.Module]  # (channels, apply_act=True) -> norm, with activation if apply_act


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm in float32 whatever the types of input and weights, which may be half: running statistics are float32."""

    def _apply(self, fn: Any, *arguments: Any) -> nn.Module:
        with float32_buffers(self):
            return super()._apply(fn, *arguments)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same, in the type of the input."""
        statistics = (self.running_mean, self.running_var)
        scale_and_shift = (self.weight.float(), self.bias.float())
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalised = F.batch_norm(input.float(), *statistics, *scale_and_shift, self.training, self.momentum or 0.0, self.eps)
        return normalised.to(input.dtype)


def build_norm_act(config: ModelConfig, activation: Callable[[], nn.Module]) -> NormAct:
    """The factory of norm and activation modules for a model.

    batch, group, layer (one group over all channels) or none; with Proxy Norm the activation is swish and is normalised too.
    """
    if config.proxy_norm:
        return partial(_proxy_norm_act, config)
    norm = {"batch": _batch_norm, "group": _group_norm, "layer": _layer_norm, "none": _no_norm}[config.norm]
    return partial(_norm_act, partial(norm, config), activation)


def _norm_act(
    norm: Callable[[int], nn.Module], activation: Callable[[], nn.Module], channels: int, apply_act: bool = True, **_: Any
) -> nn.Module:
    return nn.Sequential(norm(channels), activation()) if apply_act else norm(channels)


def _proxy_norm_act(config: ModelConfig, channels: int, apply_act: bool = True, **_: Any) -> nn.Module:
    num_groups, is_strided = group_count(config, channels), config.norm_channel_grouping == "strided"
    if not apply_act:  # a projection between proxy-normalised activations
        return GroupNorm(num_groups, channels, config.norm_epsilon, is_strided, has_shift=False)
    return ProxyNormAct(channels, num_groups, config.norm_epsilon, config.proxy_epsilon, is_strided)


def group_count(config: ModelConfig, channels: int) -> int:
    """Groups of a group norm: `norm_groups`, or 1 for layer norm; ConfigError where they do not divide the channels."""
    groups = 1 if config.norm == "layer" else min(config.norm_groups, channels)
    if channels % groups:
        raise ConfigError(f"norm_groups {groups} does not divide the {channels} channels of a norm")
    return groups


def _batch_norm(config: ModelConfig, channels: int) -> nn.Module:
    return BatchNorm2d(channels, eps=config.norm_epsilon, momentum=config.batch_norm_momentum)


def _group_norm(config: ModelConfig, channels: int) -> nn.Module:
    return GroupNorm(group_count(config, channels), channels, config.norm_epsilon, config.norm_channel_grouping == "strided")


def _layer_norm(config: ModelConfig, channels: int) -> nn.Module:
    return GroupNorm(1, channels, config.norm_epsilon)


def _no_norm(config: ModelConfig, channels: int) -> nn.Module:
    return nn.Identity()


def norm_parameter_names(model: nn.Module) -> Set[str]:
    """Dotted names of the scales and shifts of all norms: what weight decay leaves out. Proxy parameters are not among them."""
    names = set()
    for path, module in model.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d, ProxyNormAct)):
            names |= {f"{path}.{name}" for name in ("weight", "bias") if getattr(module, name) is not None}
    return names
