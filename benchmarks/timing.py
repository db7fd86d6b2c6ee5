"""Side-by-side timing: candidates take turns in one process, and medians are compared."""

from __future__ import annotations

import statistics
import time
from typing import Callable, Dict, List


def measure_in_turn(
    candidates: Dict[str, Callable[[], object]], rounds: int, warmup: int = 2, clock: Callable[[], float] = time.perf_counter
) -> Dict[str, float]:
    """Median seconds of each candidate over rounds in which they take turns, so that noise of the machine meets all of them."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: Dict[str, List[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
