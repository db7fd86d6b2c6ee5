"""From a data section to what is known of its images, and to the training and validation sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple

from config import ConfigError, DataConfig

from .arrays import CIFAR10_CLASSES, CIFAR10_FOLDER, FASHION_CLASSES, cifar10, digits, generated, has_cifar10, has_idx, idx_source
from .entries import class_folders
from .errors import DataError
from .folders import FolderSource
from .images import ImageSet, Source
from .preprocessing import CROPPING

# Training images and classes as published: ImageNet-1k (arXiv 1409.0575), CIFAR-10, Fashion-MNIST (arXiv 1708.07747).
PUBLISHED_SIZES = {
    "imagenet": (1_281_167, 1000),
    "cifar10": (50_000, len(CIFAR10_CLASSES)),
    "fashion-mnist": (60_000, len(FASHION_CLASSES)),
}

FOLDERS = ("imagenet", "folder")
WITHOUT_FILES = ("digits", "generated", "synthetic")  # whose images are no photographs either


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a training set before any image is read.

    Attributes:
        classes: names in the order of the labels; empty where the data is not there.
        is_counted: whether the data is there; the numbers are the published ones where it is not.
    """

    num_images: int
    num_classes: int
    classes: Tuple[str, ...]
    is_counted: bool


@dataclass(frozen=True)
class ImageSets:
    """What to train on, and what to validate on."""

    training: ImageSet
    validation: ImageSet

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.training.classes)


def training_facts(config: DataConfig) -> TrainingFacts:
    """Images and classes of the training set, from file names and headers alone; published numbers where the data is not there.

    Raises:
        DataError: the data is not there, and its size is not a published one.
        ConfigError: a field does not fit the data set.
    """
    try:
        facts = _source(config, seed=0).facts()
        return TrainingFacts(facts.num_images, len(facts.classes), facts.classes, True)
    except DataError:
        if config.dataset is None or config.dataset not in PUBLISHED_SIZES:
            raise
        return TrainingFacts(*PUBLISHED_SIZES[config.dataset], (), False)


def build_training_set(config: DataConfig, seed: int) -> ImageSet:
    """Training images at `image_size`.

    Raises:
        DataError: the data is not where it should be.
        ConfigError: the preprocessing does not fit the data set.
    """
    return _source(config, seed).training_set(config.image_size, config.preprocessing, seed)


def build_validation_set(config: DataConfig, seed: int, size: int, classes: Optional[Sequence[str]] = None) -> ImageSet:
    """Validation images at so many pixels a side, labelled by their place in `classes`; the training set's, where none are given.

    With classes, such as a checkpoint's, no training images need to be there.

    Raises:
        DataError: the data is not where it should be, or has a class that is not among these.
    """
    return _source(config, seed).validation_set(size, classes)


def build_image_sets(config: DataConfig, seed: int, validation_size: Optional[int] = None) -> ImageSets:
    """Training images at `image_size` and validation images at `validation_size`; errors as of the two."""
    training = build_training_set(config, seed)
    return ImageSets(training, build_validation_set(config, seed, validation_size or config.image_size, training.classes))


def chosen_dataset(config: DataConfig) -> str:
    """The data set that is stated, or the one that lies under data_path.

    Raises:
        DataError: neither is stated, or nothing that is known lies there.
    """
    if config.dataset is None and config.data_path is None:
        raise DataError("no data set: state --data-path with a folder of pictures, or a --dataset such as digits")
    return config.dataset or find_dataset(config.data_path or "")


def find_dataset(path: str) -> str:
    """Which kind of data set lies in a folder, by its files' names; DataError where none is known by them."""
    if has_cifar10(path):
        return "cifar10"
    if has_idx(path):
        return "idx"
    if Path(path).is_dir() and class_folders(Path(path)):
        return "folder"
    found = "no folder is there" if not Path(path).is_dir() else "none of them is there"
    raise DataError(
        f"no data set in {path}: expected train/CLASS/IMAGE and val/CLASS/IMAGE, CLASS/IMAGE, MNIST's idx files, or CIFAR-10's folder "
        f"{CIFAR10_FOLDER} ({found})"
    )


def _source(config: DataConfig, seed: int) -> Source:
    dataset = chosen_dataset(config)
    _check_fields(config, dataset)
    path = config.data_path or ""
    if dataset in FOLDERS:
        return FolderSource(path, config.validation_share, config.bounding_boxes or "", 1000 if dataset == "imagenet" else None)
    if dataset == "digits":
        return digits()
    if dataset == "cifar10":
        return cifar10(path)
    if dataset in ("idx", "fashion-mnist"):
        return idx_source(dataset, path, FASHION_CLASSES if dataset == "fashion-mnist" else None)
    return generated(config.generated_images, config.image_size, seed)


def _check_fields(config: DataConfig, dataset: str) -> None:
    """ConfigError where a field is stated that the data set has no use for."""
    if config.data_path is not None and dataset in WITHOUT_FILES:
        raise ConfigError(
            f"data_path {config.data_path!r} is not used, data set {dataset!r} has no files: --config folder, or --dataset none, takes "
            "what lies there"
        )
    if dataset in WITHOUT_FILES and config.preprocessing in CROPPING:
        raise ConfigError(f"preprocessing {config.preprocessing!r} crops photographs; data set {dataset!r} takes none, shift or shift-flip")
    for field in ("bounding_boxes", "validation_share"):
        if dataset not in FOLDERS and getattr(config, field) is not None:
            raise ConfigError(f"{field} has no meaning for data set {dataset!r}: it belongs to imagenet and folder")
