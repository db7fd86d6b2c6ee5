"""Which samples of a dataset a process gets."""

from __future__ import annotations

from typing import Iterator

import torch

from ..options import Options


class PartitionSampler(torch.utils.data.Sampler):
    """Indices of one process's contiguous share of a dataset.

    With drop_last every process gets as many whole combined batches; samples left over come in by turns, every second epoch begins that
    many samples later. Without, samples are shared out as evenly as possible. Shuffling permutes the whole dataset, anew for each epoch
    and the same in all processes.
    """

    def __init__(self, options: Options, num_samples: int, combined_batch_size: int, shuffle: bool, drop_last: bool) -> None:
        assert not shuffle or options.exists("random_seed"), "shuffling over several processes needs one seed: set Options.randomSeed(n)"
        count, number = options.Distributed.numProcesses, options.Distributed.processId
        self._num_samples = num_samples
        if drop_last:
            self._share = combined_batch_size * (num_samples // (combined_batch_size * count))
            self._start = number * self._share
            self._num_left_over = num_samples - count * self._share
        else:
            smaller, num_larger = divmod(num_samples, count)
            self._share = smaller + (number < num_larger)
            self._start = number * smaller + min(number, num_larger)
            self._num_left_over = 0
        self._generator = torch.Generator().manual_seed(options.random_seed) if shuffle else None
        self._epoch = 0

    def __len__(self) -> int:
        return self._share

    def __iter__(self) -> Iterator[int]:
        start = self._start + (self._num_left_over if self._epoch % 2 else 0)
        self._epoch += 1
        if self._generator is None:
            return iter(range(start, start + self._share))
        return iter(torch.randperm(self._num_samples, generator=self._generator)[start : start + self._share].tolist())
