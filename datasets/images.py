"""What every data set is: images by key, where a key says epoch and index, so that an image is the same whichever process loads it."""

from __future__ import annotations

import abc
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.utils.data import Dataset

from .errors import DataError, UnreadableImage

Key = Tuple[int, int]  # epoch, index
Item = Tuple[torch.Tensor, int, int]  # image uint8 [3, H, W], label, index of a file that could not be read or -1
NO_LABEL = -1  # of an item for which no readable image was found
MAX_UNREADABLE_SHARE = 0.001  # of the images of a set
MAX_UNREADABLE = 10  # images, where that is more


class ImageSet(Dataset, abc.ABC):
    """A data set of labelled images, size x size.

    An image that cannot be read is replaced by the next that can, and its index comes along with it.
    """

    def __init__(self, classes: List[str], size: int) -> None:
        self.classes = classes
        self.size = size

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Image uint8 [3, H, W] and label; UnreadableImage for a damaged file."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """How to call an image in a message."""

    @property
    def max_unreadable(self) -> int:
        """How many images may be unreadable."""
        return max(MAX_UNREADABLE, int(MAX_UNREADABLE_SHARE * len(self)))

    def __getitem__(self, key: Any) -> Item:
        epoch, index = key
        failed = -1
        for candidate in range(index, index + min(len(self), self.max_unreadable + 1)):
            try:
                image, label = self.load((epoch, candidate % len(self)))
                return image, label, failed
            except UnreadableImage:
                failed = index
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8), NO_LABEL, failed

    def fault(self, index: int) -> str:
        """Why an image cannot be read, which is tried again."""
        try:
            self.load((0, index))
        except UnreadableImage as error:
            return str(error)
        return "it could not be read before"


class Facts(NamedTuple):
    """Of a training set: number of images, and the names of the classes in the order of the labels."""

    num_images: int
    classes: Tuple[str, ...]


class Source(abc.ABC):
    """Where the training and validation images of a data set come from."""

    @abc.abstractmethod
    def facts(self) -> Facts:
        """Images and classes of the training set, without reading an image; DataError where the data is not."""

    @abc.abstractmethod
    def training_set(self, size: int, preprocessing: str, seed: int) -> ImageSet:
        """Training images at size x size; DataError where the data is not."""

    @abc.abstractmethod
    def validation_set(self, size: int, classes: Optional[Sequence[str]]) -> ImageSet:
        """Validation images, labelled by their place in `classes`, the training set's where None; DataError as above."""


def labels_in(classes: Sequence[str], names: Sequence[str], place: str) -> List[int]:
    """The label of each name; DataError names what `classes` lacks."""
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise DataError(f"{place} has {len(unknown)} classes that training lacks: {', '.join(sorted(unknown)[:5])}")
    return [labels[name] for name in names]
