"""`poptorch.DataLoader`: torch's, whose items are the combined batches that one call of a model consumes."""

from __future__ import annotations

from typing import Any, Iterator, List, Optional

import torch

from ipu_model.runtime.errors import Error, absent

from .enums import DataLoaderMode
from .options import Options


class _CombinedBatches:
    """Batches of a user's batch sampler, joined so many at a time."""

    def __init__(self, batch_sampler: Any, num_batches: int, drop_last: bool) -> None:
        self._batch_sampler = batch_sampler
        self._num_batches = num_batches
        self._drop_last = drop_last

    def __iter__(self) -> Iterator[List[Any]]:
        combined: List[Any] = []
        count = 0
        for batch in self._batch_sampler:
            combined += list(batch)
            count += 1
            if count == self._num_batches:
                yield combined
                combined, count = [], 0
        if combined and not self._drop_last:
            yield combined

    def __len__(self) -> int:
        num_batches = len(self._batch_sampler)
        rounding = 0 if self._drop_last else self._num_batches - 1
        return (num_batches + rounding) // self._num_batches


class DataLoader(torch.utils.data.DataLoader):
    """Yields combined batches: batch_size x deviceIterations x replicationFactor / input group size x gradientAccumulation samples.

    Freezes the options. Distributed partitioning over several processes and the asynchronous modes are absent and raise.
    """

    def __init__(
        self,
        options: Options,
        dataset: Any,
        batch_size: Optional[int] = 1,
        shuffle: Optional[bool] = None,
        num_workers: int = 0,
        drop_last: bool = True,
        persistent_workers: Optional[bool] = None,
        auto_distributed_partitioning: bool = True,
        mode: DataLoaderMode = DataLoaderMode.Sync,
        async_options: Optional[dict] = None,
        rebatched_worker_size: Optional[int] = None,
        batch_sampler: Any = None,
        **kwargs: Any,
    ) -> None:
        options._freeze()
        if mode != DataLoaderMode.Sync or async_options is not None or rebatched_worker_size is not None:
            raise absent(f"poptorch.DataLoader(mode={mode!s})", "mode=DataLoaderMode.Sync with num_workers")
        if auto_distributed_partitioning and options.Distributed.numProcesses > 1:
            raise absent("poptorch.DataLoader over several processes", "a batch_sampler and auto_distributed_partitioning=False")
        self._options = options
        self._num_batches = (
            options.device_iterations * (options.replication_factor // options.input_group_size) * options.Training.gradient_accumulation
        )
        if persistent_workers is None:
            persistent_workers = num_workers > 0
        self.combinedBatchSize = _combined_size(batch_size, self._num_batches, batch_sampler)
        batching: dict = dict(batch_size=self.combinedBatchSize, shuffle=shuffle, drop_last=drop_last)
        if batch_size is None:
            batching = dict(batch_size=None, shuffle=shuffle)
        elif batch_sampler is not None:
            if batch_size != 1 or shuffle:
                raise Error("batch_sampler decides about batches: leave out batch_size and shuffle.")
            batching = dict(batch_sampler=_CombinedBatches(batch_sampler, self._num_batches, drop_last))
        super().__init__(dataset, num_workers=num_workers, persistent_workers=persistent_workers, **batching, **kwargs)

    @property
    def options(self) -> Options:
        """The options it was made with."""
        return self._options

    def terminate(self) -> None:
        """Stop an asynchronous worker: nothing to do in Sync mode."""


def _combined_size(batch_size: Optional[int], num_batches: int, batch_sampler: Any) -> Optional[int]:
    if batch_sampler is not None:
        batch_size = getattr(batch_sampler, "batch_size", None)
    return None if batch_size is None else batch_size * num_batches


def AsynchronousDataAccessor(*args: Any, **kwargs: Any) -> Any:
    """Absent."""
    raise absent("poptorch.AsynchronousDataAccessor", "poptorch.DataLoader with num_workers")
