"""Gradient accumulation and reduction, always in one order: accumulation steps, then replicas by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence

import torch


@dataclass(frozen=True)
class Reduction:
    """How the gradients of the micro batches of an update combine: mean or sum, running or at the end, in accumulators of what type."""

    is_mean: bool
    is_running: bool
    accumulator_dtype: torch.dtype


@dataclass(frozen=True)
class ReplicaGroups:
    """Groups of replicas that share one value of a parameter: neighbours, or (orthogonal) every `num_groups`-th replica."""

    num_groups: int
    replication_factor: int
    is_orthogonal: bool = False

    def group_of(self, replica: int) -> int:
        """Group of a replica."""
        return replica % self.num_groups if self.is_orthogonal else replica * self.num_groups // self.replication_factor

    def members(self, group: int) -> List[int]:
        """Replicas of a group."""
        return [replica for replica in range(self.replication_factor) if self.group_of(replica) == group]


def accumulate(accumulators: List[torch.Tensor], gradients: Sequence[torch.Tensor], step: int, rule: Reduction) -> List[torch.Tensor]:
    """Add one micro batch's gradients to a replica's accumulators, which are stored in the accumulator type.

    A running mean keeps the mean of the steps so far, a <- a * k / (k + 1) + g / (k + 1), so that a half accumulator does not
    overflow; otherwise accumulators are sums.
    """
    if not gradients:
        return accumulators
    dtype = rule.accumulator_dtype
    if not accumulators:
        return [gradient if gradient.dtype == dtype else gradient.to(dtype) for gradient in gradients]
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


def reduce_replicas(
    totals: Sequence[Sequence[torch.Tensor]],
    num_steps: int,
    rule: Reduction,
    groups: Optional[Mapping[int, ReplicaGroups]] = None,
) -> List[torch.Tensor]:
    """Sum or mean of the replicas' accumulators, in float32, added in the order of the replicas.

    Gradients of parameters in `groups` (by number) are summed inside a group and come back with one slice for each; their mean too is
    over all replicas, whose losses are averaged.
    """
    divisor = float((1 if rule.is_running else num_steps) * len(totals)) if rule.is_mean else 1.0
    if not groups:
        return _reduce(totals, divisor)
    grouped = {
        index: torch.stack(
            [_reduce([[totals[replica][index]] for replica in group.members(i)], divisor)[0] for i in range(group.num_groups)]
        )
        for index, group in groups.items()
    }
    shared = [index for index in range(len(totals[0])) if index not in grouped]
    reduced = dict(zip(shared, _reduce([[gradients[index] for index in shared] for gradients in totals], divisor)))
    return [grouped[index] if index in grouped else reduced[index] for index in range(len(totals[0]))]


def _reduce(totals: Sequence[Sequence[torch.Tensor]], divisor: float) -> List[torch.Tensor]:
    """The sum over replicas, in their order, divided."""
    reduced = [gradient if gradient.dtype == torch.float32 else gradient.to(torch.float32) for gradient in totals[0]]
    if not reduced:
        return reduced
    for following in totals[1:]:
        torch._foreach_add_(reduced, [gradient.to(torch.float32) for gradient in following])
    if divisor != 1:
        torch._foreach_div_(reduced, divisor)
    return reduced
