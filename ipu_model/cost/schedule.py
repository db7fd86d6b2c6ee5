"""How the stages of a pipeline follow one another in time: one schedule, which is drawn and costed, and says which micro batches wait.

Time goes in slots, in lock step: in each slot every stage that has work does it, and the slot lasts as long as the busiest IPU works.
An IPU that runs several stages does their passes one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

SCHEDULES = ("grouped", "interleaved", "sequential")


@dataclass(frozen=True)
class Pass:
    """One pass of one micro batch on one stage; times in cycles."""

    stage: int
    micro_batch: int
    is_forward: bool
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Cycles of one weight update (training) or of one call's device iterations (inference).

    Attributes:
        total: from the first micro batch in to the last one out.
        ramp: what filling and draining the pipeline adds to the time of as many micro batches in a full one.
        bubble_fraction: share of the IPUs' time in which they wait: in the ramp, or for the slowest.
    """

    total: float
    ramp: float
    bubble_fraction: float


@dataclass(frozen=True)
class Slots:
    """Slots in which the passes of a micro batch run, counted from the forward pass of the first stage.

    "grouped": in each slot a stage runs a forward and a backward pass of different micro batches; the last stage's are of the same one.
    "interleaved": a stage runs forward and backward passes in turn, and its neighbours those that it does not. "sequential": one pass in a
    slot. Inference has forward passes only, so that "interleaved" is as "grouped".

    Attributes:
        stride: slots from one micro batch to the next.
        backward: slot of each stage's backward pass; that of its forward pass is the stage's number. Empty in inference.
    """

    stride: int
    backward: Tuple[int, ...]

    @classmethod
    def of(cls, schedule: str, num_stages: int, is_training: bool) -> Slots:
        """Those of a schedule; ValueError for an unknown one."""
        if schedule not in SCHEDULES:
            raise ValueError(f"unknown pipeline schedule {schedule!r}: expected one of {', '.join(SCHEDULES)}")
        is_sequential = schedule == "sequential"
        if not is_training:
            return cls(num_stages if is_sequential else 1, ())
        first = num_stages - 1 if schedule == "grouped" else num_stages  # the last stage's backward pass
        stride = {"grouped": 1, "interleaved": 2, "sequential": 2 * num_stages}[schedule]
        return cls(stride, tuple(first + num_stages - 1 - stage for stage in range(num_stages)))

    def waiting(self, stage: int, num_micro_batches: int) -> int:
        """Micro batches that wait for their backward passes on a stage, beside the one whose backward pass runs."""
        lag = self.backward[stage] - stage if self.backward else 0
        return min(lag // self.stride, num_micro_batches - 1)


def passes(forward: Sequence[float], backward: Sequence[float], ipus: Sequence[int], num_micro_batches: int, schedule: str) -> List[Pass]:
    """Every pass of a schedule, in order of time.

    Args:
        forward, backward: cycles of each stage for one micro batch; no backward at all in inference.
        ipus: IPU of each stage.
        num_micro_batches: of a weight update, or of the device iterations of a call.
        schedule: "grouped", "interleaved" or "sequential".
    """
    slots = Slots.of(schedule, len(forward), any(backward))
    work: Dict[int, List[Tuple[int, int, bool]]] = {}
    for batch in range(num_micro_batches):
        for stage in range(len(forward)):
            work.setdefault(slots.stride * batch + stage, []).append((stage, batch, True))
        for stage, slot in enumerate(slots.backward):
            work.setdefault(slots.stride * batch + slot, []).append((stage, batch, False))
    result: List[Pass] = []
    begin = 0.0
    for slot in sorted(work):
        free = dict.fromkeys(ipus, begin)
        for stage, batch, is_forward in sorted(work[slot], key=lambda item: not item[2]):
            start = free[ipus[stage]]
            free[ipus[stage]] = start + (forward if is_forward else backward)[stage]
            result.append(Pass(stage, batch, is_forward, start, free[ipus[stage]]))
        begin = max(free.values())
    return result


def timeline(forward: Sequence[float], backward: Sequence[float], ipus: Sequence[int], num_micro_batches: int, schedule: str) -> Timeline:
    """Times of `passes`, without going through all of them: once a pipeline is full, each micro batch takes as long as the one before."""
    filled = 2 * len(forward) + 1

    def end(count: int) -> float:
        return max((one.end for one in passes(forward, backward, ipus, count, schedule)), default=0.0)

    whole = end(filled)
    period = whole - end(filled - 1)
    total = end(num_micro_batches) if num_micro_batches <= filled else whole + (num_micro_batches - filled) * period
    busy = num_micro_batches * (sum(forward) + sum(backward))
    return Timeline(total, max(total - num_micro_batches * period, 0.0), 1 - busy / (len(set(ipus)) * total) if total else 0.0)
