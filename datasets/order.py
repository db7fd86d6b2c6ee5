"""In which order images are fed: a function of seed, epoch and position alone, so that a run can stop and go on anywhere."""

from __future__ import annotations

from typing import Iterator, List

import torch

from .images import Key


class TrainingOrder:
    """Batch sampler of training: micro batches of keys, a new permutation each epoch; what does not fill a call is left out.

    Attributes: `epoch` and `first_call` say where the next iteration begins.
    """

    def __init__(self, num_images: int, micro_batch_size: int, micro_batches_per_call: int, seed: int) -> None:
        self.batch_size = micro_batch_size
        self.epoch = 0
        self.first_call = 0
        self._num_images = num_images
        self._per_call = micro_batches_per_call
        self._seed = seed

    @property
    def calls_per_epoch(self) -> int:
        """Calls of the model in an epoch."""
        return self._num_images // (self.batch_size * self._per_call)

    def __len__(self) -> int:
        return (self.calls_per_epoch - self.first_call) * self._per_call

    def __iter__(self) -> Iterator[List[Key]]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self.epoch) & 0x7FFFFFFFFFFFFFFF)
        permutation = torch.randperm(self._num_images, generator=generator).tolist()
        first = self.first_call * self._per_call
        for number in range(first, self.calls_per_epoch * self._per_call):
            indices = permutation[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, index) for index in indices]


class ValidationOrder:
    """Batch sampler of validation: every image once, in order; the last call is filled up with repeats of the last image."""

    def __init__(self, num_images: int, micro_batch_size: int, micro_batches_per_call: int) -> None:
        self.batch_size = micro_batch_size
        self._num_images = num_images
        self._per_call = micro_batches_per_call

    @property
    def calls(self) -> int:
        """Calls of the model."""
        per_call = self.batch_size * self._per_call
        return (self._num_images + per_call - 1) // per_call

    def __len__(self) -> int:
        return self.calls * self._per_call

    def __iter__(self) -> Iterator[List[Key]]:
        for number in range(len(self)):
            start = number * self.batch_size
            yield [(0, min(index, self._num_images - 1)) for index in range(start, start + self.batch_size)]
