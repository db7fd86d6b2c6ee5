"""Image sets through `poptorch.DataLoader`, with unreadable files counted and named."""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Set, Tuple

import torch

import poptorch

from .errors import DataError
from .images import NO_LABEL, ImageSet
from .order import Share, TrainingOrder, ValidationOrder
from .workers import fetched, leave_group

logger = logging.getLogger(__name__)

Prepare = Callable[[torch.Tensor], torch.Tensor]


class Exact(NamedTuple):
    """How a loader of every image once finds out which ones only fill up: its share, in micro batches of this size."""

    share: Share
    batch_size: int


class Loader:
    """Combined batches of a set: images [D*G*R*B, 3, H, W], labels int32 [D*G*R*B], and which images are real; R counts own replicas.

    With `exact`, every image of the set counts once:
    `is_real` is False for repeats that only fill up the last call, and for stand-ins of unreadable files.
    """

    def __init__(
        self, images: ImageSet, loader: Any, num_calls: Callable[[], int], prepare: Optional[Prepare], exact: Optional[Exact] = None
    ) -> None:
        self._images = images
        self._loader = loader
        self._num_calls = num_calls
        self._prepare = prepare
        self._exact = exact
        self.unreadable: Set[int] = set()
        self.classes = images.classes

    def __len__(self) -> int:
        return self._num_calls()

    def __iter__(self) -> Iterator[Tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        seen = 0
        for pixels, labels, failed in fetched(self._loader):
            self._note(labels, failed)
            is_real = torch.ones(len(labels), dtype=torch.bool)
            if self._exact is not None:
                positions = self._exact.share.positions(seen, len(labels), self._exact.batch_size)
                is_real = (positions < len(self._images)) & (failed < 0)
            seen += len(labels)
            yield pixels if self._prepare is None else self._prepare(pixels), labels.to(torch.int32), is_real

    def _note(self, labels: torch.Tensor, failed: torch.Tensor) -> None:
        """Name files that could not be read; DataError when they are too many."""
        images = self._images
        for index in failed[failed >= 0].tolist():
            if index not in self.unreadable:
                self.unreadable.add(index)
                logger.warning("skipped %s: %s (%d so far)", images.name(index), images.fault(index), len(self.unreadable))
        if len(self.unreadable) > images.max_unreadable:
            names = ", ".join(images.name(index) for index in sorted(self.unreadable)[:3])
            raise DataError(
                f"{len(self.unreadable)} of {len(images)} images cannot be read, more than {images.max_unreadable}: {names}. "
                "Remove or replace the files"
            )
        if bool((labels == NO_LABEL).any()):
            first = int(failed[labels == NO_LABEL][0])
            raise DataError(f"{images.name(first)} and the {min(len(images) - 1, images.max_unreadable)} images after it cannot be read")


def build_training_loader(
    images: ImageSet, options: poptorch.Options, micro_batch_size: int, seed: int, num_workers: int, prepare: Optional[Prepare] = None
) -> Tuple[Loader, TrainingOrder]:
    """Loader of training images, and the order that says where its next iteration begins.

    Raises:
        DataError: fewer images than one call consumes.
    """
    per_call = _micro_batches_per_call(options)
    order = TrainingOrder(len(images), micro_batch_size, per_call, seed, _share(options))
    if not order.calls_per_epoch:
        raise DataError(
            f"the training set has {len(images)} images, one call consumes {micro_batch_size * per_call}: lower micro_batch_size, "
            "gradient_accumulation, replicas or device_iterations"
        )
    if options.Distributed.processId == 0:
        _say_epochs(order, options.device_iterations, images)
    loader = _poptorch_loader(options, images, order, num_workers)
    return Loader(images, loader, lambda: order.calls_per_epoch - order.first_call, prepare), order


def _say_epochs(order: TrainingOrder, updates_per_call: int, images: ImageSet) -> None:
    left_out = len(images) - order.images_per_epoch
    logger.info(
        "%d training images of %d classes: %d weight updates an epoch%s",
        len(images),
        len(images.classes),
        order.calls_per_epoch * updates_per_call,
        f", {left_out} images left out, others each time" if left_out else "",
    )


def build_validation_loader(
    images: ImageSet, options: poptorch.Options, micro_batch_size: int, num_workers: int, prepare: Optional[Prepare] = None
) -> Loader:
    """Loader of every validation image, the last incomplete batch included."""
    share = _share(options)
    order = ValidationOrder(len(images), micro_batch_size, _micro_batches_per_call(options), share)
    return Loader(
        images, _poptorch_loader(options, images, order, num_workers), lambda: order.calls, prepare, Exact(share, micro_batch_size)
    )


def _micro_batches_per_call(options: poptorch.Options) -> int:
    return options.device_iterations * _share(options).total * options.Training.gradient_accumulation


def _share(options: poptorch.Options) -> Share:
    """The replicas of this process among those of all."""
    own = options.replication_factor
    return Share(options.Distributed.processId * own, own, options.Distributed.numProcesses * own)


def _poptorch_loader(options: poptorch.Options, images: ImageSet, order: Any, num_workers: int) -> poptorch.DataLoader:
    settings: Dict[str, Any] = dict(num_workers=num_workers, worker_init_fn=leave_group, auto_distributed_partitioning=False)
    return poptorch.DataLoader(options, images, batch_sampler=order, **settings)
