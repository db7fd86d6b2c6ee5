"""Tensors of nested structures, under the names that libraries built on PopTorch import."""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Sequence

import torch


def combine_batch_tensors_gen(batches: Sequence[Sequence[torch.Tensor]]) -> Iterator[torch.Tensor]:
    """The i-th tensors of several flat batches joined along axis 0, one i after another."""
    batches = [list(batch) for batch in batches]
    sizes = {len(batch) for batch in batches}
    if len(sizes) > 1:
        raise ValueError(f"combine_batch_tensors_gen takes batches with the same number of tensors, got {sorted(sizes)}")
    for same in zip(*batches):
        yield torch.cat(same, dim=0)


def flattenTensorStructure(tensors: Any, canonical_structure: Optional[Any] = None) -> List[Any]:
    """Leaves of nested lists, tuples and dicts in order; the keys of dicts in the order of the canonical structure, where there is one."""
    if isinstance(tensors, dict):
        order = canonical_structure if isinstance(canonical_structure, dict) else tensors
        pairs = [(tensors[key], order[key]) for key in order]
    elif isinstance(tensors, (list, tuple)):
        canonical = canonical_structure if isinstance(canonical_structure, (list, tuple)) else tensors
        pairs = list(zip(tensors, canonical))
    else:
        return [tensors]
    return [leaf for part, shape in pairs for leaf in flattenTensorStructure(part, shape)]
