"""Initial weights, by the papers' code (see each function)."""

from __future__ import annotations

import math

from torch import nn

# Standard deviation of a unit Gaussian cut at two deviations: variance scaling divides by it (TensorFlow's VarianceScaling).
TRUNCATED_DEVIATION = 0.87962566103423978


def initialise_efficientnet(model: nn.Module) -> None:
    """Convolutions: truncated normal, variance 2 / fan_out, group convolutions 2 / fan_in; classifier: Glorot uniform; biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _variance_scaling(module, is_fan_in=module.groups > 1)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _variance_scaling(conv: nn.Conv2d, is_fan_in: bool, scale: float = 2.0) -> None:
    """Fans count one group's channels: fan_in = C_in / groups * k * k, fan_out = C_out * k * k."""
    receptive = conv.kernel_size[0] * conv.kernel_size[1]
    fan = conv.weight.shape[1] * receptive if is_fan_in else conv.out_channels * receptive
    deviation = math.sqrt(scale / fan) / TRUNCATED_DEVIATION
    nn.init.trunc_normal_(conv.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
