"""In which order images are fed: a function of seed, epoch and position alone, so that a run can stop and go on anywhere."""

from __future__ import annotations

from typing import Iterator, List, NamedTuple

import torch

from .images import Key
from .randomness import order_seed


class Share(NamedTuple):
    """The part of this process when several feed one program: of every `total` micro batches in a row, `count` from number `first` on.

    A call takes micro batches in the order iterations, accumulation steps, replicas, so these are those of the process's own replicas.
    """

    first: int = 0
    count: int = 1
    total: int = 1

    def has(self, number: int) -> bool:
        """Whether a micro batch, counted over all processes, is this process's."""
        return self.first <= number % self.total < self.first + self.count

    def positions(self, start: int, num_images: int, batch_size: int) -> torch.Tensor:
        """Places among the images of all processes of so many images of this one, counted from its own `start`-th."""
        own = torch.arange(start, start + num_images)
        micro_batch = torch.div(own, batch_size, rounding_mode="floor")
        number = torch.div(micro_batch, self.count, rounding_mode="floor") * self.total + self.first + micro_batch % self.count
        return number * batch_size + own % batch_size


WHOLE = Share()


class TrainingOrder:
    """Batch sampler of training: micro batches of keys, a new permutation each epoch; what does not fill a call is left out.

    `micro_batches_per_call` counts those of all processes. Attributes: `epoch` and `first_call` say where the next iteration begins.
    """

    def __init__(self, num_images: int, micro_batch_size: int, micro_batches_per_call: int, seed: int, share: Share = WHOLE) -> None:
        self.batch_size = micro_batch_size
        self.epoch = 0
        self.first_call = 0
        self._num_images = num_images
        self._per_call = micro_batches_per_call
        self._seed = seed
        self._share = share

    @property
    def calls_per_epoch(self) -> int:
        """Calls of the model in an epoch."""
        return self._num_images // (self.batch_size * self._per_call)

    @property
    def images_per_epoch(self) -> int:
        """Images that all processes take in an epoch; the others are left out."""
        return self.calls_per_epoch * self._per_call * self.batch_size

    def __len__(self) -> int:
        return (self.calls_per_epoch - self.first_call) * self._per_call * self._share.count // self._share.total

    def __iter__(self) -> Iterator[List[Key]]:
        generator = torch.Generator().manual_seed(order_seed(self._seed, self.epoch))
        permutation = torch.randperm(self._num_images, generator=generator).tolist()
        first = self.first_call * self._per_call
        for number in filter(self._share.has, range(first, self.calls_per_epoch * self._per_call)):
            indices = permutation[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, index) for index in indices]


class ValidationOrder:
    """Batch sampler of validation: every image once, in order; the last call is filled up with repeats of the last image."""

    def __init__(self, num_images: int, micro_batch_size: int, micro_batches_per_call: int, share: Share = WHOLE) -> None:
        self.batch_size = micro_batch_size
        self._num_images = num_images
        self._per_call = micro_batches_per_call
        self._share = share

    @property
    def calls(self) -> int:
        """Calls of the model."""
        per_call = self.batch_size * self._per_call
        return (self._num_images + per_call - 1) // per_call

    def __len__(self) -> int:
        return self.calls * self._per_call * self._share.count // self._share.total

    def __iter__(self) -> Iterator[List[Key]]:
        for number in filter(self._share.has, range(self.calls * self._per_call)):
            start = number * self.batch_size
            yield [(0, min(index, self._num_images - 1)) for index in range(start, start + self.batch_size)]
