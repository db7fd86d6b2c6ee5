"""Gradient accumulation and reduction, always in one order: accumulation steps, then replicas by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

import torch


@dataclass(frozen=True)
class Reduction:
    """How the gradients of the micro batches of an update combine: mean or sum, running or at the end, in accumulators of what type."""

    is_mean: bool
    is_running: bool
    accumulator_dtype: torch.dtype


def accumulate(accumulators: List[torch.Tensor], gradients: Sequence[torch.Tensor], step: int, rule: Reduction) -> List[torch.Tensor]:
    """Add one micro batch's gradients to a replica's accumulators, which are stored in the accumulator type.

    A running mean keeps the mean of the steps so far, a <- a * k / (k + 1) + g / (k + 1), so that a half accumulator does not
    overflow; otherwise accumulators are sums.
    """
    if not gradients:
        return accumulators
    dtype = rule.accumulator_dtype
    if not accumulators:
        return [gradient.to(dtype) for gradient in gradients]
    wide = [gradient.to(torch.float32) for gradient in gradients]
    if dtype == torch.float32:
        present = accumulators
    else:
        present = [accumulator.to(torch.float32) for accumulator in accumulators]
    if rule.is_running and rule.is_mean:
        torch._foreach_mul_(present, step / (step + 1))
        torch._foreach_add_(present, wide, alpha=1 / (step + 1))
    else:
        torch._foreach_add_(present, wide)
    return present if dtype == torch.float32 else [value.to(dtype) for value in present]


def reduce_replicas(totals: Sequence[Sequence[torch.Tensor]], num_steps: int, rule: Reduction) -> List[torch.Tensor]:
    """Sum or mean of the replicas' accumulators, in float32, added in the order of the replicas."""
    reduced = [gradient.to(torch.float32) for gradient in totals[0]]
    if not reduced:
        return reduced
    for following in totals[1:]:
        torch._foreach_add_(reduced, [gradient.to(torch.float32) for gradient in following])
    if rule.is_mean:
        steps_to_divide = 1 if rule.is_running else num_steps
        torch._foreach_div_(reduced, float(steps_to_divide * len(totals)))
    return reduced
