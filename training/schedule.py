"""Learning rate and loss scale as functions of time in epochs. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from config import OptimizerConfig, ScheduleConfig


class Moment(NamedTuple):
    """Hyperparameters at a point of a run."""

    learning_rate: float
    loss_scale: float


@dataclass(frozen=True)
class Rates:
    """Learning rate and loss scale over a run.

    Attributes:
        learning_rate: the full one, which warm-up and decay multiply: base rate x global batch.
    """

    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    learning_rate: float

    def at(self, epoch: float) -> Moment:
        """Those of a (fractional) epoch."""
        rate = learning_rate(self.schedule, self.learning_rate, epoch)
        return Moment(rate, loss_scale(self.optimizer, epoch / self.schedule.epochs))

    def extremes(self, calls_per_epoch: int) -> Tuple[float, float]:
        """The highest learning rate of a run's calls, and the last one."""
        calls = calls_per_epoch * self.schedule.epochs
        rates = [learning_rate(self.schedule, self.learning_rate, (call + 0.5) / calls_per_epoch) for call in range(calls)]
        return max(rates), rates[-1]


def learning_rate(schedule: ScheduleConfig, full: float, epoch: float) -> float:
    """Learning rate at a (fractional) epoch: full x warm-up x decay.

    Warm-up is epoch / warmup_epochs, at most 1. Decay is 1 (constant); factor^floor(epoch / decay_every_epochs) (exponential);
    (1 + cos(pi epoch / epochs)) / 2 (cosine); factor^(milestones passed) (step).

    Decay counts from epoch 0, through the warm-up, as in the code of arXiv 2106.03640: where it drops before the warm-up ends, the full
    rate is never reached. In the paper's 350 epochs the highest is 0.97^2 of it, and the 146th drop falls on the end, so that the last
    epochs train at 0.97^145 of it.
    """
    warmup = min(1.0, epoch / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0
    return full * warmup * _decay(schedule, epoch)


def _decay(schedule: ScheduleConfig, epoch: float) -> float:
    if schedule.schedule == "exponential":
        return schedule.decay_factor ** math.floor(epoch / schedule.decay_every_epochs)
    if schedule.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / schedule.epochs)))
    if schedule.schedule == "step":
        return schedule.decay_factor ** sum(epoch >= milestone for milestone in schedule.decay_milestones_epochs)
    return 1.0


def loss_scale(optimizer: OptimizerConfig, progress: float) -> float:
    """Loss scale at a share of the run from 0 to 1.

    A ramp doubles from the initial to the final scale, which it reaches in equal intervals; an automatic scale starts at `loss_scaling`.
    """
    if optimizer.loss_scaling_mode != "ramp":
        return optimizer.loss_scaling
    doublings = math.ceil(math.log2(max(optimizer.loss_scaling / optimizer.initial_loss_scaling, 1.0)))
    passed = math.floor(progress * (doublings + 1))
    return min(optimizer.initial_loss_scaling * 2.0**passed, optimizer.loss_scaling)


def is_due(count: int, every: Optional[int], is_last: bool = False) -> bool:
    """Whether something done every so many times is due after the count-th; the last time always, and never where `every` is none."""
    return every is not None and (count % every == 0 or is_last)


def is_passed(count: int, by: int, every: Optional[int]) -> bool:
    """Whether the last `by` of `count` times passed a multiple of `every`; never where `every` is none."""
    return every is not None and count // every > (count - by) // every
