"""Learning rate and loss scale as functions of time in epochs. No torch."""

from __future__ import annotations

import math

from config import OptimizerConfig, ScheduleConfig


def learning_rate(schedule: ScheduleConfig, peak: float, epoch: float) -> float:
    """Learning rate at a (fractional) epoch: peak x warm-up x decay.

    Warm-up is epoch / warmup_epochs, at most 1. Decay is 1 (constant); factor^floor(epoch / decay_every_epochs) (exponential);
    (1 + cos(pi epoch / epochs)) / 2 (cosine); factor^(milestones passed) (step).
    """
    warmup = min(1.0, epoch / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0
    return peak * warmup * _decay(schedule, epoch)


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


def is_due(count: int, every: int, is_last: bool = False) -> bool:
    """Whether something done every so many times is due after the count-th; the last time always, and never where `every` is 0."""
    return bool(every) and (count % every == 0 or is_last)
