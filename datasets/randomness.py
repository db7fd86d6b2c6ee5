"""Random numbers of the host: a function of what they are for, so that they are the same whichever process draws them."""

from __future__ import annotations

import random


def sample_generator(seed: int, epoch: int, index: int) -> random.Random:
    """Random numbers of one image in one epoch."""
    return _generator("image", seed, epoch, index)


def order_seed(seed: int, epoch: int) -> int:
    """Seed of torch's generator for the order of an epoch: 63 bits."""
    return _generator("order", seed, epoch).getrandbits(63)


def part_seed(seed: int, part: str) -> int:
    """Seed of torch's generator for a part of the generated images: 63 bits."""
    return _generator(part, seed).getrandbits(63)


def _generator(purpose: str, *numbers: int) -> random.Random:
    """A generator of its own for each purpose and tuple of numbers, whatever their sizes.

    Python seeds from all bits of a text and of its SHA-512 (`random.seed`, version 2), so no two texts share a state by arithmetic.
    """
    return random.Random(f"{purpose} {' '.join(map(str, numbers))}")
