"""torch.nn.init.trunc_normal_ inside forward: recent releases draw until every number is inside, which needs the values."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Iterator

import torch

from .host_tensors import is_host_tensor

_NAME = "_no_grad_trunc_normal_"  # what trunc_normal_ calls, wherever it was imported to


@contextlib.contextmanager
def drawn_without_rejection() -> Iterator[None]:
    """Tensors of the device are filled by the inverse of the distribution; those of the CPU as torch does."""
    own = getattr(torch.nn.init, _NAME)

    def fill(tensor: torch.Tensor, mean: float, std: float, a: float, b: float, *generator: Any, **named: Any) -> torch.Tensor:
        if is_host_tensor(tensor):
            return own(tensor, mean, std, a, b, *generator, **named)
        return _by_inverse(tensor, mean, std, a, b)

    setattr(torch.nn.init, _NAME, fill)
    try:
        yield
    finally:
        setattr(torch.nn.init, _NAME, own)


def _by_inverse(tensor: torch.Tensor, mean: float, std: float, a: float, b: float) -> torch.Tensor:
    """x = mean + std sqrt(2) erfinv(u), with u uniform between the images of a and b."""
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    with torch.no_grad():
        return tensor.uniform_(low, high).erfinv_().mul_(std * math.sqrt(2)).add_(mean).clamp_(a, b)
