"""From a model section to an initialised network."""

from __future__ import annotations

from torch import nn

from config import ModelConfig

from .architectures import RESNETS
from .efficientnet import build_efficientnet
from .resnet import build_resnet


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The network of a model section: images [N, 3, H, W] to logits [N, num_classes]."""
    build = build_resnet if config.architecture in RESNETS else build_efficientnet
    return build(config, num_classes)
