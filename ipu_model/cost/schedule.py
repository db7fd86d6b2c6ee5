"""How stages of a pipeline follow one another in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

SCHEDULES = ("grouped", "interleaved", "sequential")


@dataclass(frozen=True)
class Timeline:
    """Cycles of one weight update (training) or of one call's device iterations (inference).

    Attributes:
        total: from the first micro batch in to the last one out.
        steady: in which every stage works.
        ramp: of filling and draining, in which only a part of them does.
        bubble_fraction: share of the IPUs' time in which they wait for the ramp or for the slowest stage.
    """

    total: float
    steady: float
    ramp: float
    bubble_fraction: float


def timeline(forward: Sequence[float], backward: Sequence[float], num_micro_batches: int, schedule: str) -> Timeline:
    """Times of a schedule.

    Args:
        forward, backward: cycles of each stage for one micro batch; no backward in inference.
        num_micro_batches: of a weight update, or of the device iterations of a call.
        schedule: "grouped" runs forward passes together and backward passes together: a pipeline cycle lasts as long as the slowest
            forward and the slowest backward pass of any stage at the same time, filling needs forward passes only and draining backward
            passes only. "interleaved" alternates them, so that at any time some stages run forward while others run backward: a cycle is
            as long as twice the slower of the two. "sequential" runs one stage after another.
    """
    stages = len(forward)
    both = [ahead + back for ahead, back in zip(forward, backward)]
    busy = num_micro_batches * sum(both)
    if schedule == "sequential" or stages == 1:
        steady, ramp = num_micro_batches * sum(both), 0.0
    elif schedule == "interleaved":
        half = max(max(forward), max(backward))
        cycle = 2 * half if any(backward) else max(forward)
        steady, ramp = num_micro_batches * cycle, (stages - 1) * cycle
    else:
        steady = num_micro_batches * max(both)
        ramp = (stages - 1) * (max(forward) + max(backward))
    total = steady + ramp
    return Timeline(total, steady, ramp, 1 - busy / (stages * total) if total else 0.0)


@dataclass(frozen=True)
class Span:
    """One pass of one micro batch on one stage, for drawing."""

    stage: int
    micro_batch: int
    is_forward: bool
    begin: float
    end: float


def spans(forward: Sequence[float], backward: Sequence[float], num_micro_batches: int) -> List[Span]:
    """Passes of a pipeline, each as soon as what it needs is there: forward passes in order, backward passes as they come.

    A stage runs a waiting backward pass before the next forward pass, and holds no more than 2 (S - stage) - 1 micro batches.
    """
    stages = len(forward)
    free = [0.0] * stages
    done_forward = [[0.0] * num_micro_batches for _ in range(stages)]
    done_backward = [[0.0] * num_micro_batches for _ in range(stages)]
    next_forward, next_backward = [0] * stages, [0] * stages
    result: List[Span] = []
    total = stages * num_micro_batches * (2 if any(backward) else 1)
    while len(result) < total:
        choices = []
        for stage in range(stages):
            batch = next_backward[stage]
            if any(backward) and batch < next_forward[stage]:
                ready = done_forward[stage][batch] if stage == stages - 1 else done_backward[stage + 1][batch]
                if stage == stages - 1 or next_backward[stage + 1] > batch:
                    choices.append((max(ready, free[stage]), 0, stage, batch))
            batch = next_forward[stage]
            has_room = not any(backward) or batch - next_backward[stage] < 2 * (stages - stage) - 1
            if batch < num_micro_batches and has_room and (stage == 0 or next_forward[stage - 1] > batch):
                ready = done_forward[stage - 1][batch] if stage else 0.0
                choices.append((max(ready, free[stage]), 1, stage, batch))
        begin, is_forward, stage, batch = min(choices)
        end = begin + (forward if is_forward else backward)[stage]
        (done_forward if is_forward else done_backward)[stage][batch] = end
        (next_forward if is_forward else next_backward)[stage] += 1
        free[stage] = end
        result.append(Span(stage, batch, bool(is_forward), begin, end))
    return result
