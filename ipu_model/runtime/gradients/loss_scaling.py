"""Loss scaling: the loss is multiplied before the backward pass, and the gradients divided after it."""

from __future__ import annotations

from typing import List, Sequence

import torch

# PopART's defaults as far as they are known: the scale halves when more than this share of gradient elements lies above this part of
# the largest half number, and doubles otherwise.
ASSUMED_EDGE = 0.125 * 65504.0
ASSUMED_UPPER_SHARE = 1e-7
LARGEST_SCALE = 65504.0  # the scale itself is seeded as half in a half model


class LossScaler:
    """A loss scale, fixed by the optimizer or adapted by the device.

    Attributes: `scale`, a 0-dimensional float32 tensor on the device; `last_factor`, by which it changed last.
    """

    def __init__(self, scale: float, is_automatic: bool, device: torch.device) -> None:
        self.is_automatic = is_automatic
        self._fixed = float(scale)
        self.scale = torch.tensor(float(scale), device=device)
        self.last_factor = torch.ones((), device=device)

    def unscale(self, gradients: List[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Divide by the scale in place; when automatic, then choose the next scale from the scaled gradients' size."""
        if not gradients or (self._fixed == 1.0 and not self.is_automatic):
            return gradients
        if not self.is_automatic:
            torch._foreach_mul_(gradients, 1.0 / self._fixed)
            return gradients
        following = self._next_scale(gradients)
        torch._foreach_mul_(gradients, [1.0 / self.scale] * len(gradients))
        self.scale = following
        return gradients

    def _next_scale(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        large = torch.stack([(gradient.abs() > ASSUMED_EDGE).sum() for gradient in gradients]).sum()
        share = large / sum(gradient.numel() for gradient in gradients)
        self.last_factor = torch.where(share > ASSUMED_UPPER_SHARE, 0.5, 2.0)
        return (self.scale * self.last_factor).clamp(1.0, LARGEST_SCALE)
