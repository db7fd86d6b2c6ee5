"""Squeeze-and-excitation into which Proxy Norm's scale is folded."""

from __future__ import annotations

from typing import Any, Tuple

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual, SqueezeExcite
from torch import nn


class ScaledSqueezeExcite(SqueezeExcite):
    """Squeeze-and-excitation of activations whose scale is still to act: it multiplies the gate, which multiplies the activations.

    Its input is the pair (activations [N, C, H, W], scale [C]). The squeeze sees the activations as they are.
    """

    def forward(self, x: Tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """activations * (gate * scale): [N, C, H, W]."""
        activations, scale = x
        reduced = self.act1(self.conv_reduce(activations.mean((2, 3), keepdim=True)))  # type: ignore[misc]
        gate = self.gate(self.conv_expand(reduced)) * scale.view(-1, 1, 1)  # type: ignore[misc]
        return activations * gate.to(activations.dtype)


def fold_proxy_scales(network: Any) -> None:
    """Proxy Norm's scale as published: into the gate after the spatial convolutions, dropped before the pooling, applied elsewhere.

    `network` is an EfficientNet of timm's blocks with `ProxyNormAct` after each spatial convolution and `ScaledSqueezeExcite` after that.
    """
    for block in network.modules():
        if isinstance(block, (DepthwiseSeparableConv, InvertedResidual)):
            norm_before_gate(block).scale = "returned"
    network.bn2.scale = "dropped"


def norm_before_gate(block: nn.Module) -> Any:
    """The norm after a block's spatial convolution."""
    return block.bn1 if isinstance(block, DepthwiseSeparableConv) else block.bn2
