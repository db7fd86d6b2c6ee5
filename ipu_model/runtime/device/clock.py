"""When micro batches went in and came out, by the host's clock: what PopTorch's latency calls report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple


@dataclass
class Clock:
    """Times in seconds at which the micro batches of a call began, and at which those that are returned ended."""

    begin: List[float] = field(default_factory=list)
    end: List[float] = field(default_factory=list)


def perf_counters(clock: Clock, num_inputs: int, num_outputs: int) -> Dict[str, List[List[float]]]:
    """Times by event and by input or output tensor.

    Inputs are complete when the micro batch begins, and outputs are on the host when it ends: there is no transfer to see.
    """
    inputs = [list(clock.begin) for _ in range(num_inputs)]
    outputs = [list(clock.end) for _ in range(num_outputs)]
    return {"input": inputs, "input_complete": inputs, "output": outputs, "output_complete": outputs}


class RunClock:
    """The times of the last call, by event."""

    def __init__(self) -> None:
        self.counters: Dict[str, List[List[float]]] = {event: [[]] for event in ("input", "input_complete", "output", "output_complete")}

    def remember(self, clock: Clock, num_inputs: int, num_outputs: int) -> None:
        """Take the times of a call with so many input and output tensors."""
        self.counters = perf_counters(clock, num_inputs, num_outputs)

    def latency(self, begin: str, end: str) -> Tuple[float, float, float]:
        """(min, max, average) seconds from the event `begin` to the event `end` over the iterations of the last call."""
        return latency(self.counters, begin, end)


def latency(counters: Dict[str, List[List[float]]], begin: str, end: str) -> Tuple[float, float, float]:
    """(min, max, average) seconds from the event `begin` to the event `end` over the iterations of the last call; zeros without times.

    Where there are more begins than ends they are grouped evenly, and the earliest of a group counts.
    """
    begins = [min(times) for times in zip(*counters[begin])]
    ends = [max(times) for times in zip(*counters[end])]
    if not begins or not ends:
        return 0.0, 0.0, 0.0
    count = min(len(begins), len(ends))
    begins = [min(group) for group in _groups(begins, count)]
    ends = [max(group) for group in _groups(ends, count)]
    spans = [last - first for first, last in zip(begins, ends)]
    return min(spans), max(spans), sum(spans) / len(spans)


def _groups(values: List[float], count: int) -> List[List[float]]:
    size = len(values) // count
    return [values[index * size : (index + 1) * size] for index in range(count)]
