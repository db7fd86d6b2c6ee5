"""Random numbers of the host."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. The device is seeded by its options."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
