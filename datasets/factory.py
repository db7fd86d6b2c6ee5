"""From a data section to the training and validation sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from config import ConfigError, DataConfig

from . import arrays, folders
from .arrays import ArrayImages
from .errors import DataError
from .folders import FolderImages
from .images import ImageSet

# Training images and classes as published: ImageNet-1k (arXiv 1409.0575), CIFAR-10, Fashion-MNIST (arXiv 1708.07747).
PUBLISHED_SIZES = {"imagenet": (1_281_167, 1000), "cifar10": (50_000, 10), "fashion-mnist": (60_000, 10)}


@dataclass(frozen=True)
class ImageSets:
    """What to train on, and what to validate on."""

    training: ImageSet
    validation: ImageSet

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.training.classes)


def build_image_sets(config: DataConfig, seed: int, validation_size: Optional[int] = None) -> ImageSets:
    """Training images at `image_size` and validation images at `validation_size`.

    Raises:
        DataError: the data is not where it should be.
        ConfigError: the preprocessing does not fit the data set.
    """
    validation_size = validation_size or config.validation_image_size or config.image_size
    if config.dataset in ("imagenet", "folder"):
        return _from_folders(config, seed, validation_size)
    if config.preprocessing in ("standard", "autoaugment"):
        raise ConfigError(
            f"preprocessing {config.preprocessing!r} crops photographs; data set {config.dataset!r} takes none, shift or shift-flip"
        )
    if config.bounding_boxes:
        raise ConfigError(f"bounding_boxes has no meaning for data set {config.dataset!r}: it belongs to imagenet and folder")
    return _from_arrays(config, seed, validation_size)


def training_size(config: DataConfig, seed: int) -> Tuple[int, int, bool]:
    """Number of training images, number of classes, and whether they were counted; published numbers where the data is not there.

    Raises:
        DataError: the data is not there, and its size is not a published one.
    """
    try:
        sets = build_image_sets(config, seed)
        return len(sets.training), sets.num_classes, True
    except DataError:
        if config.dataset not in PUBLISHED_SIZES:
            raise
        return (*PUBLISHED_SIZES[config.dataset], False)


def _from_arrays(config: DataConfig, seed: int, validation_size: int) -> ImageSets:
    if config.dataset == "digits":
        train, validation = arrays.load_digits()
    elif config.dataset == "cifar10":
        train, validation = (arrays.load_cifar10(config.data_path, is_training) for is_training in (True, False))
    elif config.dataset == "fashion-mnist":
        train, validation = (arrays.load_fashion_mnist(config.data_path, is_training) for is_training in (True, False))
    else:
        train = arrays.generate_images(config.generated_images, config.image_size, seed)
        validation = arrays.generate_images(max(1, config.generated_images // 5), validation_size, seed + 1)
    return ImageSets(
        ArrayImages(train, config.image_size, config.preprocessing, seed),
        ArrayImages(validation, validation_size),
    )


def _from_folders(config: DataConfig, seed: int, validation_size: int) -> ImageSets:
    train, validation, classes = folders.class_folders(config.data_path)
    if config.dataset == "imagenet" and len(classes) != 1000:
        raise DataError(f"{train} has {len(classes)} classes, ImageNet has 1000; for other class folders use --dataset folder")
    boxes = folders.read_bounding_boxes(config.bounding_boxes)
    return ImageSets(
        FolderImages(train, config.image_size, True, config.preprocessing, seed, boxes, classes),
        FolderImages(validation, validation_size, False, "none", seed, {}, classes),
    )
