"""What every data set is: images by key, where a key says epoch and index, so that an image is the same whichever process loads it."""

from __future__ import annotations

import abc
from typing import Any, List, Tuple

import torch
from torch.utils.data import Dataset

Key = Tuple[int, int]  # epoch, index
Item = Tuple[torch.Tensor, int, int]  # image uint8 [3, H, W], label, index of a file that could not be read or -1

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises for damaged files


class ImageSet(Dataset, abc.ABC):
    """A data set of labelled images.

    An image that cannot be read is replaced by the next that can, and its index comes along with it.
    """

    def __init__(self, classes: List[str]) -> None:
        self.classes = classes

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Image uint8 [3, H, W] and label; one of UNREADABLE for a damaged file."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """How to call an image in a message."""

    def __getitem__(self, key: Any) -> Item:
        epoch, index = key
        failed = -1
        for candidate in range(index, index + len(self)):
            try:
                image, label = self.load((epoch, candidate % len(self)))
                return image, label, failed
            except UNREADABLE:
                failed = index if failed < 0 else failed
        raise OSError("no image of the data set can be read")
