"""Top-1, top-5 and loss of a model over a loader."""

from __future__ import annotations

import time
from typing import Dict, Iterable, Optional

from .instances import gather
from .metrics import Scores
from .parts import Batch, InferenceExecutor


def evaluate(model: InferenceExecutor, batches: Iterable[Batch]) -> Dict[str, float]:
    """Run an inference model over (images, labels, is_real) batches, each instance over its own.

    Returns:
        top1 and top5 in percent, loss, images and images_per_second of all instances; only real images count.
    """
    scores = Scores()
    start: Optional[float] = None  # after compiling, which the speed leaves out
    for images, labels, is_real in batches:
        if start is None:
            if not model.isCompiled():
                model.compile(images)
            start = time.perf_counter()
        scores.add_logits(model(images), labels, is_real)
    totals = scores.totals(gather)
    seconds = time.perf_counter() - (start or 0.0)
    return {**totals.means(), "images": totals.images, "images_per_second": totals.images / seconds}
