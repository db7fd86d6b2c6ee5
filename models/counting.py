"""Parameters, multiply-accumulates and activation elements of a network, counted while it runs one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List

import torch
from torch import nn

from .proxy_norm import ProxyNormAct


@dataclass(frozen=True)
class Counts:
    """What a network costs for one image.

    `num_parameters` counts as the paper does: with Proxy Norm six values per channel, the two statistics that are not learned included.
    """

    num_parameters: int
    macs: int
    activation_elements: int


def count(model: nn.Module, image_size: int) -> Counts:
    """Count over one image [1, 3, image_size, image_size]: convolutions and linear layers; elements are convolution outputs."""
    macs: List[int] = []
    elements: List[int] = []

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            per_output = module.weight[0].numel()  # C_in / groups * k * k
            macs.append(output.numel() * per_output)
            elements.append(output.numel())
        elif isinstance(module, nn.Linear):
            macs.append(module.weight.numel())

    handles = [module.register_forward_hook(note) for module in model.modules()]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    statistics = sum(2 * module.weight.numel() for module in model.modules() if isinstance(module, ProxyNormAct))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Counts(num_parameters + statistics, sum(macs), sum(elements))
