"""`poptorch.DataLoader`: torch's, whose items are the combined batches that one call of a model consumes."""

from __future__ import annotations

import copy
import logging
from typing import Any, Dict, Optional

import torch

from ipu_model.runtime.errors import Error

from .._options.store import freeze
from ..enums import DataLoaderMode
from ..options import Options
from .accessor import AsynchronousDataAccessor
from .batches import grouped_loader
from .partitions import PartitionSampler

logger = logging.getLogger("poptorch::python")


class DataLoader(torch.utils.data.DataLoader):
    """Yields combined batches: batch_size x deviceIterations x replicationFactor / input group size x gradientAccumulation samples.

    Freezes the options. With several processes (`options.Distributed`) each gets a share of the dataset. In Async mode another process
    loads ahead, and an item's tensors are overwritten when the next item is asked for; in AsyncRebatched mode the workers load
    `rebatched_worker_size` samples at a time, so that none are lost for each worker.

    Raises:
        AssertionError: an iterable dataset over several processes, shuffling over several processes without `Options.randomSeed`, a
            rebatched size above the combined batch.
        Error: batch_sampler beside batch_size or shuffle, or over several processes.
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
        async_options: Optional[Dict[str, Any]] = None,
        rebatched_worker_size: Optional[int] = None,
        batch_sampler: Any = None,
        **kwargs: Any,
    ) -> None:
        freeze(options)
        self._accessor: Optional[AsynchronousDataAccessor] = None
        self._options = options
        self._num_batches = (
            options.device_iterations * (options.replication_factor // options.input_group_size) * options.Training.gradient_accumulation
        )
        if persistent_workers is None:
            persistent_workers = num_workers > 0
        self._is_partitioned = auto_distributed_partitioning and options.Distributed.numProcesses > 1
        self.combinedBatchSize = _combined_size(batch_size, self._num_batches, batch_sampler)
        self.drops_last_combined = drop_last
        self.ends_short = not drop_last and (self.combinedBatchSize or 1) > 1 and batch_sampler is None
        self._grouped: Optional[torch.utils.data.DataLoader] = None
        settings: Dict[str, Any] = dict(num_workers=num_workers, persistent_workers=persistent_workers, **kwargs)
        rebatched_size = None
        if batch_sampler is not None:
            self._check_batch_sampler(batch_size, shuffle)
            self._grouped = grouped_loader(dataset, batch_sampler, self._num_batches, drop_last, **settings)
            settings["batch_sampler"] = batch_sampler
        else:
            settings.update(self._batching(dataset, shuffle, drop_last, num_workers, kwargs))
            rebatched_size = self._rebatched_size(DataLoaderMode(mode), rebatched_worker_size, settings)
        super().__init__(dataset, **settings)
        if mode != DataLoaderMode.Sync:
            given = dict(async_options or {})
            assert "rebatched_size" not in given, "async_options cannot hold rebatched_size: use rebatched_worker_size and AsyncRebatched"
            self._accessor = AsynchronousDataAccessor(copy.copy(self), rebatched_size=rebatched_size, **given)

    def _check_batch_sampler(self, batch_size: Optional[int], shuffle: Optional[bool]) -> None:
        if batch_size != 1 or shuffle:
            raise Error("batch_sampler decides about batches: leave out batch_size and shuffle.")
        if self._is_partitioned:
            raise Error("batch_sampler decides what a process gets: pass auto_distributed_partitioning=False.")

    def _batching(self, dataset: Any, shuffle: Optional[bool], drop_last: bool, num_workers: int, kwargs: Dict[str, Any]) -> Dict[str, Any]:
        batching: Dict[str, Any] = dict(batch_size=self.combinedBatchSize, shuffle=shuffle)
        if self.combinedBatchSize is not None:
            batching["drop_last"] = drop_last
        num_processes = self._options.Distributed.numProcesses
        if isinstance(dataset, torch.utils.data.IterableDataset):
            assert not self._is_partitioned, "an iterable dataset cannot be shared out: pass auto_distributed_partitioning=False"
            if num_workers > 1 and kwargs.get("worker_init_fn") is None:
                logger.warning("Every worker gets the whole iterable dataset unless worker_init_fn shares it out.")
            return batching
        if self.combinedBatchSize is not None and not drop_last and len(dataset) % (self.combinedBatchSize * num_processes):
            logger.warning("The number of samples, %d, is not a multiple of the combined batch: the last item is smaller.", len(dataset))
        if self._is_partitioned:
            assert self.combinedBatchSize is not None, "batch_size=None cannot be shared out over several processes"
            assert kwargs.get("sampler") is None, "a sampler over several processes needs auto_distributed_partitioning=False"
            batching["sampler"] = PartitionSampler(self._options, len(dataset), self.combinedBatchSize, bool(shuffle), drop_last)
            batching["shuffle"] = None
        return batching

    def _rebatched_size(self, mode: DataLoaderMode, worker_size: Optional[int], batching: Dict[str, Any]) -> Optional[int]:
        """Samples that the accessor joins, None where workers load whole combined batches; sets what they load."""
        combined = self.combinedBatchSize
        is_rebatched = mode == DataLoaderMode.AsyncRebatched or (mode == DataLoaderMode.Async and not self.drops_last_combined)
        if not is_rebatched or combined is None or combined <= 1:
            return None
        size = combined if worker_size is None or mode != DataLoaderMode.AsyncRebatched else worker_size
        assert 0 < size <= combined, f"rebatched_worker_size must be from 1 to the combined batch size {combined}, got {size}"
        batching.update(batch_size=size, drop_last=False)
        return combined

    @property
    def options(self) -> Options:
        """The options it was made with."""
        return self._options

    @property
    def has_accessor(self) -> bool:
        """Whether another process loads for it."""
        return self._accessor is not None

    def __len__(self) -> int:
        if self._grouped is not None:
            return len(self._grouped)
        if self._accessor is None or self._accessor.rebatched_size is None:
            return super().__len__()
        rounding = 0 if self.drops_last_combined else self._accessor.rebatched_size - 1
        is_iterable = isinstance(self.dataset, torch.utils.data.IterableDataset)
        samples: Any = self.dataset if is_iterable else self.sampler
        return (len(samples) + rounding) // self._accessor.rebatched_size

    def __iter__(self) -> Any:
        if self._accessor is not None:
            return iter(self._accessor)
        return super().__iter__() if self._grouped is None else iter(self._grouped)

    def terminate(self) -> None:
        """Stop the asynchronous worker; nothing to do in Sync mode."""
        if self._accessor is not None:
            self._accessor.terminate()

    def __getstate__(self) -> Dict[str, Any]:
        """For the process that loads: without the accessor, which stays here."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_accessor", "_iterator")}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state, _accessor=None, _iterator=None)


def _combined_size(batch_size: Optional[int], num_batches: int, batch_sampler: Any) -> Optional[int]:
    if batch_sampler is not None:
        batch_size = getattr(batch_sampler, "batch_size", None)
    return None if batch_size is None else batch_size * num_batches
