"""Mixup and cutmix on the device, inside a micro batch (facts: arXiv 1710.09412, 1905.04899 and the LN+PN recipe)."""

from __future__ import annotations

import math
from typing import Any, List, Tuple

import torch
from torch import nn

from .float32 import float32_buffers

Labels = List[Tuple[torch.Tensor, torch.Tensor]]  # (labels int64 [N], weight float32 [N]) whose weighted losses add up

MIXUP_PARTNER = 1  # the batch rolled by one
CUTMIX_PARTNER = 2  # rolled by two, so that an image never meets the same partner twice
_TABLE_SIZE = 4096


def mixup_quantiles(alpha: float, count: int = _TABLE_SIZE) -> torch.Tensor:
    """Mid-point quantiles of max(lam, 1 - lam), lam ~ Beta(alpha, alpha): float32 [count].

    P(max(lam, 1 - lam) <= t) = 1 - 2 I_{1-t}(alpha, alpha), so the quantile of u is 1 - I^-1((1 - u) / 2). Drawing from this table
    instead of the Beta distribution needs only uniform numbers on the device; it differs from it by 1 / count in probability.
    """
    from scipy.special import betaincinv

    upper = [(1 - (i + 0.5) / count) / 2 for i in range(count)]
    return torch.tensor([1 - float(betaincinv(alpha, alpha, u)) for u in upper])


class Mixup(nn.Module):
    """lam * image + (1 - lam) * partner, one lam for each image."""

    quantiles: torch.Tensor

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.register_buffer("quantiles", mixup_quantiles(alpha), persistent=False)

    def _apply(self, fn: Any, *arguments: Any) -> nn.Module:
        with float32_buffers(self):
            return super()._apply(fn, *arguments)

    def forward(self, images: torch.Tensor, labels: Labels) -> Tuple[torch.Tensor, Labels]:
        """Mix images [N, 3, H, W] with the batch rolled by one; every label is joined by the partner's."""
        draws = torch.rand(images.shape[0], device=images.device)
        index = (draws * _TABLE_SIZE).long().clamp(max=_TABLE_SIZE - 1)
        lam = self.quantiles[index]
        mix = lam.to(images.dtype)[:, None, None, None]
        mixed = mix * images + (1 - mix) * images.roll(MIXUP_PARTNER, 0)
        partners = [(label.roll(MIXUP_PARTNER, 0), weight.roll(MIXUP_PARTNER, 0) * (1 - lam)) for label, weight in labels]
        return mixed, [(label, weight * lam) for label, weight in labels] + partners


class Cutmix(nn.Module):
    """One box for the whole micro batch is taken from the partner.

    With probability 1.55 * strength - 0.96 nothing is cut; else the kept area is lam = 1 + ln(u) / 4, u ~ U(e^-4, 1). The box has the
    image's aspect ratio and lies whole inside it: its centre is uniform, and moved inwards where the box would reach over the border. The
    labels mix by the pixels that are kept, which are lam of them but for the rounding to whole pixels.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.probability_of_none = min(max(1.55 * strength - 0.96, 0.0), 1.0)

    def forward(self, images: torch.Tensor, labels: Labels) -> Tuple[torch.Tensor, Labels]:
        """Cut a box of images [N, 3, H, W] from the batch rolled by two; every label is joined by the partner's."""
        height, width = images.shape[2:]
        draws = torch.rand(4, device=images.device)
        is_cut = (draws[0] >= self.probability_of_none).float()
        smallest = math.exp(-4.0)
        side = torch.sqrt(-torch.log(smallest + (1 - smallest) * draws[1]) / 4) * is_cut  # sqrt(1 - lam): of each side
        rows = _inside(height, draws[2], side, images)
        columns = _inside(width, draws[3], side, images)
        box = rows[:, None] * columns[None, :]
        kept = (1 - box.mean()).expand(images.shape[0])
        mask = box.to(images.dtype)
        mixed = images * (1 - mask) + images.roll(CUTMIX_PARTNER, 0) * mask
        partners = [(label.roll(CUTMIX_PARTNER, 0), weight.roll(CUTMIX_PARTNER, 0) * (1 - kept)) for label, weight in labels]
        return mixed, [(label, weight * kept) for label, weight in labels] + partners


def _inside(length: int, centre: torch.Tensor, side: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """1 for the pixels of an axis in an interval of this side around the centre (shares of the length), moved inside, else 0: [length]."""
    centre = torch.minimum(torch.maximum(centre, side / 2), 1 - side / 2)
    positions = (torch.arange(length, device=images.device).float() + 0.5) / length
    return ((positions - centre).abs() < side / 2).float()
