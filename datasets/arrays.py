"""Data sets that fit into memory: digits, CIFAR-10, sets of idx files, generated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .errors import DataError
from .idx import find_idx, idx_shape, read_idx
from .images import Facts, ImageSet, Key, Source, labels_in
from .pictures import Picture
from .preprocessing import CROPPING, augment_array, auto_augment, crop_and_flip
from .randomness import part_seed, sample_generator

DIGITS_VALIDATION_SHARE = 0.2
DIGITS_SPLIT_SEED = 0
DIGITS_TRAINING_IMAGES = 1437
DIGITS_CLASSES = tuple(map(str, range(10)))
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
IDX_FILES = {  # MNIST's names, which Fashion-MNIST and others took over
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Arrays(NamedTuple):
    """Images uint8 [N, C, H, W] with C 1 or 3, labels int64 [N], and the names of the classes."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: List[str]


class ArrayImages(ImageSet):
    """Images in memory as they are stored; each is resized when it is asked for, so that a large size costs no memory."""

    def __init__(self, arrays: Arrays, size: int, preprocessing: str = "none", seed: int = 0) -> None:
        super().__init__(arrays.classes, size)
        self._images = arrays.images
        self._labels = arrays.labels
        self._preprocessing = preprocessing
        self._seed = seed

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Image and label."""
        epoch, index = key
        image = self._images[index].expand(3, -1, -1)
        generator = sample_generator(self._seed, epoch, index)
        if self._preprocessing in CROPPING:
            picture = Picture(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
            pixels = crop_and_flip(picture, self.size, [], generator)
            pixels = auto_augment(pixels, generator) if self._preprocessing == "autoaugment" else pixels
        else:
            pixels = augment_array(_resized(image, self.size), self._preprocessing, generator)
        return pixels, int(self._labels[index])

    def name(self, index: int) -> str:
        """Where an image is."""
        return f"image {index}"


def _resized(image: torch.Tensor, size: int) -> torch.Tensor:
    if image.shape[-1] == size and image.shape[-2] == size:
        return image.contiguous()
    resized = F.interpolate(image[None].float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


class ArraySource(Source):
    """A data set that is read whole: `load` takes whether the training images are meant, `facts` reads none."""

    def __init__(self, name: str, load: Callable[[bool], Arrays], facts: Callable[[], Facts]) -> None:
        self._name, self._load, self._facts = name, load, facts

    def facts(self) -> Facts:
        """As the data set says."""
        return self._facts()

    def training_set(self, size: int, preprocessing: str, seed: int) -> ArrayImages:
        """All training images."""
        return ArrayImages(self._load(True), size, preprocessing, seed)

    def validation_set(self, size: int, classes: Optional[Sequence[str]]) -> ArrayImages:
        """All validation images."""
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


def has_cifar10(path: str) -> bool:
    """Whether a folder holds CIFAR-10's files in their own folder."""
    return (Path(path) / CIFAR10_FOLDER / "data_batch_1").is_file()


def cifar10(path: str) -> ArraySource:
    """CIFAR-10 from the folder that holds `cifar-10-batches-py`."""

    def facts() -> Facts:
        if not has_cifar10(path):
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
        f"no CIFAR-10 in {path or 'an empty --data-path'}: expected the folder {path}/{CIFAR10_FOLDER} with the unpacked Python "
        f"version of the data set ({' '.join(reason.split())})"
    )


def has_idx(path: str) -> bool:
    """Whether a folder holds any of the four files of a set of idx files."""
    return any((Path(path) / f"{name}{suffix}").is_file() for names in IDX_FILES.values() for name in names for suffix in ("", ".gz"))


def idx_source(name: str, path: str, classes: Optional[Sequence[str]] = None) -> ArraySource:
    """Images and labels from idx files, packed or not, in one folder; classes without names are called by their numbers."""

    def names_of(labels: torch.Tensor) -> List[str]:
        return list(classes) if classes is not None else [str(label) for label in range(int(labels.max()) + 1)]

    def load(is_training: bool) -> Arrays:
        images_file, labels_file = IDX_FILES["train" if is_training else "val"]
        images, labels = torch.from_numpy(read_idx(path, images_file)), torch.from_numpy(read_idx(path, labels_file))
        _check_pair(find_idx(path, images_file), find_idx(path, labels_file), images, labels)
        known = names_of(labels)
        if int(labels.max()) >= len(known):
            raise DataError(f"{find_idx(path, labels_file)} has label {int(labels.max())}, {name} has {len(known)} classes")
        return Arrays(images[:, None], labels.long(), known)

    def facts() -> Facts:
        images_file, labels_file = IDX_FILES["train"]
        labels = torch.from_numpy(read_idx(path, labels_file))
        num_images = idx_shape(path, images_file)[0]
        if labels.dim() != 1 or len(labels) != num_images or not num_images:
            raise _no_labels(find_idx(path, labels_file), labels, num_images, find_idx(path, images_file))
        return Facts(num_images, tuple(names_of(labels)))

    return ArraySource(name, load, facts)


def _check_pair(images_file: Path, labels_file: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    """DataError where two files are not images and their labels."""
    if images.dim() != 3 or not images.numel():
        raise DataError(f"{images_file} has dimensions {list(images.shape)}, expected images, rows and columns")
    if labels.dim() != 1 or len(labels) != len(images):
        raise _no_labels(labels_file, labels, len(images), images_file)


def _no_labels(file: Path, labels: torch.Tensor, num_images: int, images_file: Path) -> DataError:
    return DataError(f"{file} has dimensions {list(labels.shape)}, expected one label for each of the {num_images} images of {images_file}")


def generated(count: int, size: int, seed: int) -> ArraySource:
    """Random training images, and a fifth as many validation images; there is nothing in them to learn."""

    def load(is_training: bool) -> Arrays:
        part = "training" if is_training else "validation"
        return generate_images(count if is_training else max(1, count // 5), size, part_seed(seed, part))

    return ArraySource("generated", load, lambda: Facts(count, tuple(map(str, range(10)))))


def generate_images(count: int, size: int, seed: int, num_classes: int = 10) -> Arrays:
    """Random images and labels, the same for a seed: for speed and for tests, there is nothing in them to learn."""
    needed, present = count * 3 * size * size, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present:
        raise DataError(
            f"{count} generated images of {size} pixels need {needed / 2**30:.0f} GiB, the host has {present / 2**30:.0f}: lower "
            "generated_images or image_size"
        )
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return Arrays(images, labels, [str(index) for index in range(num_classes)])
