"""From uint8 pixels to what a network takes."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

import torch

Colours = Tuple[float, float, float]  # red, green, blue, 0 to 255

# Mean and standard deviation of ImageNet's training images (torchvision's constants times 255).
IMAGENET_MEAN: Colours = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION: Colours = (58.395, 57.12, 57.375)
PAPER_MEAN: Colours = (123.68, 116.78, 103.94)  # of the code of arXiv 2106.03640, which does not divide unless told to
NORMALISATIONS: Dict[str, Tuple[Colours, Optional[Colours]]] = {
    "mean": (PAPER_MEAN, None),
    "mean-and-deviation": (IMAGENET_MEAN, IMAGENET_DEVIATION),
}


def colour_constant(values: Colours) -> torch.Tensor:
    """float32 [3, 1, 1], to broadcast over images [N, 3, H, W]."""
    return torch.tensor(values).view(3, 1, 1)


def normalised(images: torch.Tensor, mean: torch.Tensor, deviation: Optional[torch.Tensor]) -> torch.Tensor:
    """uint8 images less the mean, divided by the deviation if there is one: float32."""
    centred = images.float() - mean
    return centred if deviation is None else centred / deviation
