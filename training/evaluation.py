"""Validation: top-1, top-5 and loss of a model over a loader."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterable

from .metrics import Totals


def evaluate(model: Any, batches: Iterable[Any]) -> Dict[str, float]:
    """Run an inference model over (images, labels, is_real) batches.

    Returns:
        top1 and top5 in percent, loss, images and images_per_second; only real images count.
    """
    totals = Totals()
    start = time.perf_counter()
    for images, labels, is_real in batches:
        totals.add_logits(model(images), labels, is_real)
    seconds = time.perf_counter() - start
    return {**totals.means(), "images": totals.images, "images_per_second": totals.images / seconds}
