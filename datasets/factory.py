"""From a data section to what is known of its images, and to the training and validation sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from config import ConfigError, DataConfig

from .arrays import CIFAR10_CLASSES, FASHION_CLASSES, ArraySource, cifar10, digits, fashion_mnist, generated
from .errors import DataError
from .folders import FolderSource
from .images import ImageSet, Source

# Training images and classes as published: ImageNet-1k (arXiv 1409.0575), CIFAR-10, Fashion-MNIST (arXiv 1708.07747).
PUBLISHED_SIZES = {
    "imagenet": (1_281_167, 1000),
    "cifar10": (50_000, len(CIFAR10_CLASSES)),
    "fashion-mnist": (60_000, len(FASHION_CLASSES)),
}


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
        if config.dataset not in PUBLISHED_SIZES:
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


def _source(config: DataConfig, seed: int) -> Source:
    if config.dataset in ("imagenet", "folder"):
        return FolderSource(config.data_path or "", None, config.bounding_boxes or "", 1000 if config.dataset == "imagenet" else None)
    if config.preprocessing in ("standard", "autoaugment"):
        raise ConfigError(
            f"preprocessing {config.preprocessing!r} crops photographs; data set {config.dataset!r} takes none, shift or shift-flip"
        )
    if config.bounding_boxes:
        raise ConfigError(f"bounding_boxes has no meaning for data set {config.dataset!r}: it belongs to imagenet and folder")
    return _array_source(config, seed)


def _array_source(config: DataConfig, seed: int) -> ArraySource:
    if config.dataset == "digits":
        return digits()
    if config.dataset == "cifar10":
        return cifar10(config.data_path or "")
    if config.dataset == "fashion-mnist":
        return fashion_mnist(config.data_path or "")
    return generated(config.generated_images, config.image_size, seed)
