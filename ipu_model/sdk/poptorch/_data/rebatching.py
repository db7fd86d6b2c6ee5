"""Batches of one size out of batches of any sizes."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Tuple

import torch

from .items import as_lists, check_joinable, put_together, take_apart

Batch = Tuple[Any, List[torch.Tensor]]  # a skeleton, its tensors


def rebatch(items: Iterable[Any], size: int, drop_last: bool) -> Iterator[Any]:
    """Batches of `size` rows; the last may be smaller."""
    pending: List[Batch] = []
    count = 0
    for item in items:
        tensors, skeleton = take_apart(as_lists(item))
        check_joinable(skeleton)
        pending.append((skeleton, tensors))
        count += len(tensors[0])
        while count >= size:
            yield _take(pending, size)
            count -= size
    if count and not drop_last:
        yield _take(pending, count)


def _take(pending: List[Batch], size: int) -> Any:
    """The first rows of the pending batches, which lose them."""
    first = pending[0][0]
    parts: List[List[torch.Tensor]] = []
    while size:
        skeleton, tensors = pending.pop(0)
        taken = min(size, len(tensors[0]))
        parts.append([tensor[:taken] for tensor in tensors])
        if taken < len(tensors[0]):
            pending.insert(0, (skeleton, [tensor[taken:] for tensor in tensors]))
        size -= taken
    return put_together(first, [torch.cat(same) for same in zip(*parts)])
