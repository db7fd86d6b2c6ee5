"""Combined batches out of a user's batch sampler: each of its batches is collated alone, then so many are joined."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Sequence

import torch

from .items import join


class CollatedBatches(torch.utils.data.Dataset):
    """A dataset whose element for a list of indices is the collated batch of these samples."""

    def __init__(self, dataset: Any, collate_fn: Callable[[List[Any]], Any]) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn

    def __getitem__(self, indices: Sequence[Any]) -> Any:
        load_all = getattr(self._dataset, "__getitems__", None)
        return self._collate_fn(load_all(indices) if load_all else [self._dataset[index] for index in indices])


class GroupedBatches:
    """Batches of a batch sampler, so many at a time; drop_last decides about an incomplete group."""

    def __init__(self, batch_sampler: Any, num_batches: int, drop_last: bool) -> None:
        self._batch_sampler = batch_sampler
        self._num_batches = num_batches
        self._drop_last = drop_last

    def __iter__(self) -> Iterator[List[Any]]:
        group: List[Any] = []
        for batch in self._batch_sampler:
            group.append(list(batch))
            if len(group) == self._num_batches:
                yield group
                group = []
        if group and not self._drop_last:
            yield group

    def __len__(self) -> int:
        rounding = 0 if self._drop_last else self._num_batches - 1
        return (len(self._batch_sampler) + rounding) // self._num_batches


def grouped_loader(dataset: Any, batch_sampler: Any, num_batches: int, drop_last: bool, **settings: Any) -> torch.utils.data.DataLoader:
    """A torch loader of combined batches; `settings` are torch's, collate_fn is called for each batch of the sampler."""
    collate_fn = settings.pop("collate_fn", None) or torch.utils.data.default_collate
    groups: Any = GroupedBatches(batch_sampler, num_batches, drop_last)
    return torch.utils.data.DataLoader(CollatedBatches(dataset, collate_fn), batch_sampler=groups, collate_fn=join, **settings)
