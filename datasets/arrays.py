"""Data sets that fit into memory: digits, CIFAR-10, Fashion-MNIST, generated."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import List, NamedTuple, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from .errors import DataError
from .images import ImageSet, Key
from .preprocessing import augment_array, sample_generator

DIGITS_VALIDATION_SHARE = 0.2
DIGITS_SPLIT_SEED = 0
FASHION_MNIST = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Arrays(NamedTuple):
    """Images uint8 [N, C, H, W] with C 1 or 3, labels int64 [N], and the names of the classes."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: List[str]


class ArrayImages(ImageSet):
    """Images in memory, resized once to size x size."""

    def __init__(self, arrays: Arrays, size: int, preprocessing: str = "none", seed: int = 0) -> None:
        super().__init__(arrays.classes)
        self._images = _resized(arrays.images.expand(-1, 3, -1, -1), size)
        self._labels = [int(label) for label in arrays.labels]
        self._preprocessing = preprocessing
        self._seed = seed

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Image and label."""
        epoch, index = key
        image = augment_array(self._images[index], self._preprocessing, sample_generator(self._seed, epoch, index))
        return image, self._labels[index]

    def name(self, index: int) -> str:
        """Where an image is."""
        return f"image {index}"


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size and images.shape[-2] == size:
        return images.contiguous()
    resized = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8)


def load_digits() -> Tuple[Arrays, Arrays]:
    """scikit-learn's handwritten digits, 8 x 8: training and validation images.

    The split is stratified and fixed: 1,437 training and 360 validation images.
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    pixels, targets = load(return_X_y=True)
    images = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = train_test_split(images, targets, test_size=DIGITS_VALIDATION_SHARE, random_state=DIGITS_SPLIT_SEED, stratify=targets)
    train, validation, train_labels, validation_labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    classes = [str(digit) for digit in range(10)]
    return Arrays(train, train_labels, classes), Arrays(validation, validation_labels, classes)


def load_cifar10(path: str, is_training: bool) -> Arrays:
    """CIFAR-10 from the folder that holds `cifar-10-batches-py`."""
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(path, train=is_training, download=False)
    except RuntimeError as error:
        raise DataError(
            f"no CIFAR-10 in {path or 'an empty --data-path'}: expected the folder {path}/cifar-10-batches-py with the unpacked Python "
            f"version of the data set ({error})"
        ) from error
    return Arrays(torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets), data.classes)


def load_fashion_mnist(path: str, is_training: bool) -> Arrays:
    """Fashion-MNIST from idx files, packed or not, in one folder."""
    images_name, labels_name = FASHION_MNIST["train" if is_training else "val"]
    images = torch.from_numpy(read_idx(path, images_name))
    labels = torch.from_numpy(read_idx(path, labels_name))
    return Arrays(images[:, None], labels.long(), list(FASHION_CLASSES))


def read_idx(folder: str, name: str) -> np.ndarray:
    """An idx file of unsigned bytes, `name` or `name.gz`; DataError where there is none or it is damaged.

    Format: two zero bytes, type 8, number of dimensions, each dimension as a big-endian 32-bit integer, then the bytes.
    """
    found = [path for path in (Path(folder) / name, Path(folder) / f"{name}.gz") if path.is_file()]
    if not found:
        raise DataError(f"no {name} or {name}.gz in {folder or 'an empty --data-path'}: --data-path takes the folder with the idx files")
    try:
        raw = gzip.decompress(found[0].read_bytes()) if found[0].suffix == ".gz" else found[0].read_bytes()
        zeros, kind, num_dims = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{num_dims}I", raw[4 : 4 + 4 * num_dims])
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * num_dims)
        if zeros or kind != 8 or values.size != int(np.prod(shape)):
            raise ValueError("not an idx file of bytes, or cut short")
        return values.reshape(shape).copy()
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{found[0]} cannot be read: {error}") from error


def generate_images(count: int, size: int, seed: int, num_classes: int = 10) -> Arrays:
    """Random images and labels, the same for a seed: for speed and for tests, there is nothing in them to learn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return Arrays(images, labels, [str(index) for index in range(num_classes)])
