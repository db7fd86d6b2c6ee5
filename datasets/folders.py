"""Data sets in class folders: ImageNet, and a user's own pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from .boxes import BoundingBoxes, read_bounding_boxes
from .entries import EXTENSIONS, Part, PictureFiles, class_folders, find_part, find_pictures, printable
from .errors import DataError
from .images import Facts, ImageSet, Key, Source, labels_in
from .pictures import open_picture
from .preprocessing import CROPPING, augment_array, auto_augment, crop_and_flip, resize, resize_and_centre_crop
from .randomness import sample_generator

logger = logging.getLogger(__name__)

VALIDATION_FOLDERS = ("val", "validation", "test")


class Preparation(NamedTuple):
    """How training pictures become pixels."""

    preprocessing: str
    seed: int
    boxes: Optional[BoundingBoxes]


class FolderImages(ImageSet):
    """Pictures in files; without a preparation, as validation sees them."""

    def __init__(self, files: PictureFiles, classes: List[str], size: int, preparation: Optional[Preparation] = None) -> None:
        super().__init__(classes, size)
        self._files, self._preparation = files, preparation

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The file."""
        return printable(str(self._files.path(index)))

    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Decode and preprocess one file."""
        epoch, index = key
        return self._pixels(epoch, index), int(self._files.labels[index])

    def _pixels(self, epoch: int, index: int) -> torch.Tensor:
        chosen = self._preparation
        with open_picture(self._files.path(index)) as picture:
            if chosen is None or chosen.preprocessing == "validation":
                return resize_and_centre_crop(picture, self.size)
            generator = sample_generator(chosen.seed, epoch, index)
            if chosen.preprocessing not in CROPPING:
                return augment_array(resize(picture, self.size), chosen.preprocessing, generator)
            pixels = crop_and_flip(picture, self.size, chosen.boxes.of(index) if chosen.boxes else [], generator)
            return auto_augment(pixels, generator) if chosen.preprocessing == "autoaugment" else pixels


class FolderSource(Source):
    """`PATH/train/CLASS/IMAGE` and `PATH/val/CLASS/IMAGE`; or `PATH/CLASS/IMAGE`, of which a share is held out for validation.

    `num_classes` is how many classes there have to be, where that is known.
    """

    def __init__(self, path: str, validation_share: Optional[float], bounding_boxes: str = "", num_classes: Optional[int] = None) -> None:
        self._path, self._share = Path(path), validation_share
        self._boxes, self._num_classes = bounding_boxes, num_classes
        if not path or not self._path.is_dir():
            raise DataError(f"no folder {path or 'in an empty --data-path'}: expected {self._path / 'train'}/CLASS/IMAGE")

    def facts(self) -> Facts:
        """File names are counted; no file is opened."""
        root, classes = self._training_folder()
        return Facts(len(self._training_files(root, classes)), tuple(classes))

    def training_set(self, size: int, preprocessing: str, seed: int) -> FolderImages:
        """The training pictures; a class without any is said."""
        root, classes = self._training_folder()
        files = self._training_files(root, classes)
        counts = np.bincount(files.labels, minlength=len(classes))
        if not counts.all():
            empty = [printable(name) for name, count in zip(classes, counts) if not count]
            logger.warning("no training pictures of %d of %d classes in %s: %s", len(empty), len(classes), root, ", ".join(empty[:5]))
        boxes = read_bounding_boxes(self._boxes, files) if self._boxes else None
        return FolderImages(files, classes, size, Preparation(preprocessing, seed, boxes))

    def validation_set(self, size: int, classes: Optional[Sequence[str]]) -> FolderImages:
        """The validation pictures: those under val/, the share that is held out, or all, where the classes are known."""
        folder = self._validation_folder()
        if folder is None and self._share is None and (classes is None or _has_classes(self._path / "train")):
            raise self._no_validation()
        known = list(classes) if classes is not None else self._training_folder()[1]
        root = folder or self._folder_of_classes()
        names = class_folders(root)
        labels = labels_in(known, names, str(root))
        files = find_pictures(root, names, labels) if self._share is None else find_part(root, names, labels, Part(self._share, True))
        return FolderImages(_some(files), known, size)

    def _training_files(self, root: Path, classes: List[str]) -> PictureFiles:
        labels = range(len(classes))
        if self._share is None:
            return _some(find_pictures(root, classes, labels))
        return _some(find_part(root, classes, labels, Part(self._share, False)))

    def _training_folder(self) -> Tuple[Path, List[str]]:
        root, validation = self._folder_of_classes(), self._validation_folder()
        if self._share is None and validation is None:
            raise self._no_validation()
        classes = class_folders(root)
        if len(classes) < 2:
            found = f": {', '.join(map(printable, classes))}" if classes else ""
            raise DataError(f"{root} has {len(classes)} class folders{found}; expected at least 2, {root}/CLASS/IMAGE")
        if self._num_classes not in (None, len(classes)):
            raise DataError(
                f"{root} has {len(classes)} classes, ImageNet has {self._num_classes}; for other class folders use --dataset folder"
            )
        return root, classes

    def _folder_of_classes(self) -> Path:
        """train/ where it has class folders, otherwise the folder itself, whose class may well be called train."""
        if _has_classes(self._path / "train"):
            return self._path / "train"
        if self._validation_folder() is not None:
            raise DataError(
                f"no training pictures in {self._path}: expected {self._path / 'train'}/CLASS/IMAGE beside the validation folder"
            )
        return self._path

    def _validation_folder(self) -> Optional[Path]:
        """The validation folder beside train/, None where a share is held out; DataError where both are there."""
        folders = [self._path / name for name in VALIDATION_FOLDERS if _has_classes(self._path / name)]
        if folders and self._share is not None:
            raise DataError(f"{folders[0]} has the validation pictures: leave validation_share out, or move that folder away")
        return folders[0] if folders else None

    def _no_validation(self) -> DataError:
        found = ", ".join(map(printable, class_folders(self._path)[:8])) or "no folders"
        return DataError(
            f"no validation pictures in {self._path}: expected {self._path / 'train'}/CLASS/IMAGE and {self._path / 'val'}/CLASS/IMAGE, or "
            f"class folders and --validation-share 0.2 (found: {found})"
        )


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and bool(class_folders(folder))


def _some(files: PictureFiles) -> PictureFiles:
    if not len(files):
        kinds = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"no images in {files.root}: expected one folder for each class with {kinds} files in it")
    return files
