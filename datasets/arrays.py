"""Data sets that fit into memory: digits, CIFAR-10, Fashion-MNIST, generated."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from .errors import DataError
from .idx import idx_shape, read_idx
from .images import Facts, ImageSet, Key, Source, labels_in
from .preprocessing import augment_array
from .randomness import part_seed, sample_generator

DIGITS_VALIDATION_SHARE = 0.2
DIGITS_SPLIT_SEED = 0
DIGITS_TRAINING_IMAGES = 1437
DIGITS_CLASSES = tuple(map(str, range(10)))
FASHION_MNIST = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Arrays(NamedTuple):
    """Images uint8 [N, C, H, W] with C 1 or 3, labels int64 [N], and the names of the classes."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: List[str]


class ArrayImages(ImageSet):
    """Images in memory, resized once to size x size."""

    def __init__(self, arrays: Arrays, size: int, preprocessing: str = "none", seed: int = 0) -> None:
        super().__init__(arrays.classes, size)
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


class ArraySource(Source):
    """A data set that is read whole: `load` takes whether the training images are meant, `facts` reads none."""

    def __init__(self, name: str, load: Callable[[bool], Arrays], facts: Callable[[], Facts]) -> None:
        self._name, self._load, self._facts = name, load, facts

    def facts(self) -> Facts:
        """As the data set says."""
        return self._facts()

    def training_set(self, size: int, preprocessing: str, seed: int) -> ArrayImages:
        """All training images, resized."""
        return ArrayImages(self._load(True), size, preprocessing, seed)

    def validation_set(self, size: int, classes: Optional[Sequence[str]]) -> ArrayImages:
        """All validation images, resized."""
        arrays = self._load(False)
        if classes is not None:
            labels = torch.tensor(labels_in(classes, arrays.classes, f"data set {self._name!r}"))[arrays.labels]
            arrays = Arrays(arrays.images, labels, list(classes))
        return ArrayImages(arrays, size)


def digits() -> ArraySource:
    """scikit-learn's handwritten digits, 8 x 8: 1,437 training and 360 validation images, a fixed stratified split."""
    return ArraySource("digits", load_digits, lambda: Facts(DIGITS_TRAINING_IMAGES, DIGITS_CLASSES))


def load_digits(is_training: bool) -> Arrays:
    """One part of the digits."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    pixels, targets = load(return_X_y=True)
    images = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = train_test_split(images, targets, test_size=DIGITS_VALIDATION_SHARE, random_state=DIGITS_SPLIT_SEED, stratify=targets)
    train, validation, train_labels, validation_labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    chosen = (train, train_labels) if is_training else (validation, validation_labels)
    return Arrays(*chosen, list(DIGITS_CLASSES))


def cifar10(path: str) -> ArraySource:
    """CIFAR-10 from the folder that holds `cifar-10-batches-py`."""

    def facts() -> Facts:
        if not (Path(path) / "cifar-10-batches-py" / "data_batch_1").is_file():
            raise _no_cifar10(path, "not found")
        return Facts(50_000, CIFAR10_CLASSES)  # whose files have to be the published ones, bit for bit, when they are read

    return ArraySource("cifar10", lambda is_training: _load_cifar10(path, is_training), facts)


def _load_cifar10(path: str, is_training: bool) -> Arrays:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(path, train=is_training, download=False)
    except RuntimeError as error:
        raise _no_cifar10(path, str(error)) from error
    return Arrays(torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets), list(CIFAR10_CLASSES))


def _no_cifar10(path: str, reason: str) -> DataError:
    return DataError(
        f"no CIFAR-10 in {path or 'an empty --data-path'}: expected the folder {path}/cifar-10-batches-py with the unpacked Python "
        f"version of the data set ({reason})"
    )


def fashion_mnist(path: str) -> ArraySource:
    """Fashion-MNIST from idx files, packed or not, in one folder."""

    def load(is_training: bool) -> Arrays:
        images_name, labels_name = FASHION_MNIST["train" if is_training else "val"]
        images, labels = torch.from_numpy(read_idx(path, images_name)), torch.from_numpy(read_idx(path, labels_name))
        return Arrays(images[:, None], labels.long(), list(FASHION_CLASSES))

    return ArraySource("fashion-mnist", load, lambda: Facts(idx_shape(path, FASHION_MNIST["train"][0])[0], FASHION_CLASSES))


def generated(count: int, size: int, seed: int) -> ArraySource:
    """Random training images, and a fifth as many validation images; there is nothing in them to learn."""

    def load(is_training: bool) -> Arrays:
        return generate_images(
            count if is_training else max(1, count // 5), size, part_seed(seed, "training" if is_training else "validation")
        )

    return ArraySource("generated", load, lambda: Facts(count, tuple(map(str, range(10)))))


def generate_images(count: int, size: int, seed: int, num_classes: int = 10) -> Arrays:
    """Random images and labels, the same for a seed: for speed and for tests, there is nothing in them to learn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return Arrays(images, labels, [str(index) for index in range(num_classes)])
