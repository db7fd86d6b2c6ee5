"""Host-side preprocessing of one image: uint8 in, uint8 [3, size, size] out. Randomness comes from the generator that is handed in."""

from __future__ import annotations

import math
import random
from typing import List, Sequence, Tuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from .pictures import Box, Picture

# TensorFlow's sample_distorted_bounding_box, as the papers use it for training.
MIN_OBJECT_COVERED = 0.1
ASPECT_RATIOS = (0.75, 4 / 3)
AREAS = (0.05, 1.0)
MAX_ATTEMPTS = 100
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # what AutoAugment's shifts bring in: torchvision's constants times 255
CROPPING = ("standard", "autoaugment")  # what crops photographs at random
VALIDATION_CROP = 224 / 256  # the centre crop's side / the shorter side it is cut from


def random_crop_box(width: int, height: int, objects: Sequence[Box], generator: random.Random) -> Box:
    """A random crop in pixels that covers enough of an object.

    A crop has an area of 5 % to 100 % of the image, an aspect ratio of 3/4 to 4/3, and covers at least a tenth of some object (of the
    image, where `objects`, in shares of it, is empty). After 100 attempts it is the whole image.
    """
    objects = objects or [(0.0, 0.0, 1.0, 1.0)]
    for _ in range(MAX_ATTEMPTS):
        aspect = generator.uniform(*ASPECT_RATIOS)
        area = generator.uniform(*AREAS) * width * height
        crop_width = int(round(math.sqrt(area * aspect)))
        crop_height = int(round(math.sqrt(area / aspect)))
        if not (0 < crop_width <= width and 0 < crop_height <= height):
            continue
        left = generator.randint(0, width - crop_width)
        top = generator.randint(0, height - crop_height)
        crop = (left, top, left + crop_width, top + crop_height)
        if any(_covered(crop, scaled) >= MIN_OBJECT_COVERED for scaled in _scale(objects, width, height)):
            return crop
    return (0, 0, width, height)


def _scale(objects: Sequence[Box], width: int, height: int) -> List[Box]:
    return [(left * width, top * height, right * width, bottom * height) for left, top, right, bottom in objects]


def _covered(crop: Box, target: Box) -> float:
    """Share of the target inside the crop."""
    overlap_width = max(0.0, min(crop[2], target[2]) - max(crop[0], target[0]))
    overlap_height = max(0.0, min(crop[3], target[3]) - max(crop[1], target[1]))
    area = (target[2] - target[0]) * (target[3] - target[1])
    return overlap_width * overlap_height / area if area > 0 else 0.0


def crop_and_flip(picture: Picture, size: int, objects: Sequence[Box], generator: random.Random) -> torch.Tensor:
    """Random crop resized to size x size, and flipped with probability 1/2: uint8 [3, size, size]."""
    box = random_crop_box(picture.width, picture.height, objects, generator)
    return flip(to_tensor(picture.part(box, size)), generator)


def resize_and_centre_crop(picture: Picture, size: int) -> torch.Tensor:
    """What a resize of the shorter side to size * 256 / 224 has in its centre: uint8 [3, size, size]."""
    shorter = int(size / VALIDATION_CROP)
    scale = shorter / min(picture.width, picture.height)
    left, right = _centre(picture.width, max(size, round(picture.width * scale)), size)
    top, bottom = _centre(picture.height, max(size, round(picture.height * scale)), size)
    return to_tensor(picture.part((left, top, right, bottom), size))


def _centre(side: int, resized: int, size: int) -> Tuple[float, float]:
    """Where, on the side of a picture, the `size` pixels in the middle of that side resized begin and end."""
    first = (resized - size) // 2
    return first * side / resized, (first + size) * side / resized


def resize(picture: Picture, size: int) -> torch.Tensor:
    """The whole picture at size x size: uint8 [3, size, size]."""
    return to_tensor(picture.part((0, 0, picture.width, picture.height), size))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """uint8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))  # numpy transposes bytes twice as fast as torch


def shift(image: torch.Tensor, generator: random.Random, share: float = 0.125) -> torch.Tensor:
    """Shift [3, H, W] by up to `share` of its side in each direction; what comes in repeats the border."""
    reach = max(1, round(share * image.shape[1]))
    down, right = generator.randint(0, 2 * reach), generator.randint(0, 2 * reach)
    padded = torch.nn.functional.pad(image[None].float(), (reach, reach, reach, reach), mode="replicate")[0].to(torch.uint8)
    return padded[:, down : down + image.shape[1], right : right + image.shape[2]].contiguous()


def flip(image: torch.Tensor, generator: random.Random) -> torch.Tensor:
    """Flip left and right with probability 1/2."""
    return image.flip(2) if generator.random() < 0.5 else image


def auto_augment(image: torch.Tensor, generator: random.Random) -> torch.Tensor:
    """AutoAugment with ImageNet's policies (arXiv 1805.09501), torchvision's: uint8 [3, H, W] to the same.

    torchvision draws from torch's own generator, which is seeded for the image and left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.getrandbits(63))
        return AutoAugment(AutoAugmentPolicy.IMAGENET, fill=[round(value) for value in IMAGENET_MEAN])(image)


def augment_array(image: torch.Tensor, preprocessing: str, generator: random.Random) -> torch.Tensor:
    """Training preprocessing of an image that already has its size: none, shift or shift-flip."""
    if preprocessing in ("none", "validation"):
        return image
    shifted = shift(image, generator)
    return flip(shifted, generator) if preprocessing == "shift-flip" else shifted
