"""ResNet-18/34/50/101/152 from torchvision, with the same choice of norms."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from config import ConfigError, ModelConfig

from .norm import build_norm_act


def build_resnet(config: ModelConfig, num_classes: int) -> nn.Module:
    """A ResNet: images [N, 3, H, W] to logits [N, num_classes].

    Its activation follows an addition rather than a norm, so Proxy Norm, which normalises an activation by its norm's parameters, has no
    place in torchvision's blocks: ConfigError.
    """
    if config.proxy_norm:
        raise ConfigError(f"proxy_norm is not available for {config.architecture}: its blocks activate after the residual addition")
    norm_act = build_norm_act(config, nn.ReLU)

    def norm_layer(channels: int, **settings: Any) -> nn.Module:
        return norm_act(channels, apply_act=False)

    builder = getattr(torchvision.models, config.architecture)
    model = builder(weights=None, num_classes=num_classes, norm_layer=norm_layer)
    if config.dropout:
        model.fc = nn.Sequential(nn.Dropout(config.dropout), model.fc)
    return model
