"""EfficientNet's architecture as data: the table of stages, compound scaling, and the sizes that follow from them. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Tuple

from config import ConfigError


@dataclass(frozen=True)
class Stage:
    """One row of Table 1 of "EfficientNet: Rethinking Model Scaling" (arXiv 1905.11946), before scaling."""

    kernel_size: int
    repeats: int
    channels: int
    stride: int


STAGES: Tuple[Stage, ...] = (
    Stage(3, 1, 16, 1),
    Stage(3, 2, 24, 2),
    Stage(5, 2, 40, 2),
    Stage(3, 3, 80, 2),
    Stage(5, 3, 112, 1),
    Stage(5, 4, 192, 2),
    Stage(3, 1, 320, 1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
SQUEEZE_RATIO = 0.25  # of the channels that enter a block


@dataclass(frozen=True)
class Size:
    """Compound scaling of one member of the family: factors for channels and repeats, and where resolution first halves.

    `stem_stride` and `second_stage_stride` are 2 for ImageNet, 1 for the CIFAR size (32 x 32 images).
    """

    width: float
    depth: float
    stem_stride: int = 2
    second_stage_stride: int = 2


SIZES: Dict[str, Size] = {
    "efficientnet-b0": Size(1.0, 1.0),
    "efficientnet-b1": Size(1.0, 1.1),
    "efficientnet-b2": Size(1.1, 1.2),
    "efficientnet-b3": Size(1.2, 1.4),
    "efficientnet-b4": Size(1.4, 1.8),
    "efficientnet-b5": Size(1.6, 2.2),
    "efficientnet-b6": Size(1.8, 2.6),
    "efficientnet-b7": Size(2.0, 3.1),
    "efficientnet-cifar": Size(0.5, 1.0, stem_stride=1, second_stage_stride=1),
}
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


# Found by the paper's search at B0 for twice the cost: depth x width^2 x resolution^2 is about 2 (arXiv 1905.11946, section 3.3).
DEPTH_BASE, WIDTH_BASE, RESOLUTION_BASE = 1.2, 1.1, 1.15
B0_RESOLUTION = 224


def compound_scaling(phi: float) -> Tuple[float, float, float]:
    """(depth factor, width factor, resolution in pixels) for a network of about 2^phi times the cost of B0.

    depth = 1.2^phi, width = 1.1^phi, resolution = 224 x 1.15^phi. The published networks B1 to B7 round these (SIZES), at phi of 0.5, 1, 2,
    3.5, 5, 6 and 7.
    """
    return DEPTH_BASE**phi, WIDTH_BASE**phi, B0_RESOLUTION * RESOLUTION_BASE**phi


def scale_channels(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8, never below 90 % of the product."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scale_repeats(repeats: int, depth: float) -> int:
    """Repeats times depth, rounded up."""
    return math.ceil(repeats * depth)


def num_groups(channels: int, group_size: int, is_first_stage: bool = False) -> int:
    """Groups of a group convolution over `channels`.

    The first stage works on the stem's channels, which compound scaling may leave undivided (B3: 40 channels, groups of 16): the paper
    then takes floor(C / group_size) groups, here two of 20. ConfigError where groups would not come out equal.
    """
    groups = max(channels // group_size, 1)
    is_whole = channels % groups == 0 if is_first_stage else channels % group_size == 0
    if not is_whole:
        divisors = [size for size in range(1, channels + 1) if channels % size == 0]
        nearest = sorted(divisors, key=lambda size: abs(size - group_size))[:3]
        raise ConfigError(
            f"group_size {group_size} does not divide the {channels} channels of a group convolution; nearest sizes that do: "
            f"{', '.join(map(str, sorted(nearest)))}"
        )
    return groups


def total_stride(architecture: str) -> int:
    """Pixels of the input for one of the last feature map, on a side."""
    if architecture in RESNETS:
        return 32
    size = SIZES[architecture]
    strides = [size.second_stage_stride if index == 1 else stage.stride for index, stage in enumerate(STAGES)]
    return size.stem_stride * math.prod(strides)


def nearest_good_sizes(training_size: int, size: int, period: int) -> Tuple[int, ...]:
    """Sizes around `size` whose remainder by the network's total stride is that of the training size, so that padding falls alike."""
    below = size - (size - training_size) % period
    return tuple(good for good in (below, below + period) if good > 0)


def check_image_size(architecture: str, size: int) -> None:
    """ConfigError where the last feature map would have less than one pixel of the network's stride."""
    stride = total_stride(architecture)
    if size < stride:
        raise ConfigError(f"image size {size} is too small for {architecture}, which reduces it {stride}-fold: at least {stride}")


def block_paths(size: Size) -> List[str]:
    """Module paths of all blocks in order: `blocks.<stage>.<repeat>`."""
    return [f"blocks.{index}.{r}" for index, stage in enumerate(STAGES) for r in range(scale_repeats(stage.repeats, size.depth))]
