"""What PopTorch offers to tests."""

from __future__ import annotations

from typing import Any

import torch


def allclose(reference: Any, other: Any, **tolerances: Any) -> bool:
    """torch.allclose over nested tuples and lists of tensors: same structure, each tensor close."""
    if isinstance(reference, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.allclose(reference, other, **tolerances)
    if isinstance(reference, (list, tuple)):
        same = isinstance(other, (list, tuple)) and len(reference) == len(other)
        return same and all(allclose(part, value, **tolerances) for part, value in zip(reference, other))
    return reference == other
