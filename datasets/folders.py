"""Data sets in class folders: ImageNet, and a user's own pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from PIL import Image

from .errors import DataError
from .images import Facts, ImageSet, Key, Source, labels_in
from .preprocessing import Box, augment_array, auto_augment, crop_and_flip, resize, resize_and_centre_crop
from .randomness import sample_generator

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif"}
VALIDATION_FOLDERS = ("val", "validation", "test")


class FolderImages(ImageSet):
    """Pictures in files: path from `root`, and label."""

    def __init__(
        self,
        root: Path,
        files: List[Tuple[str, int]],
        classes: List[str],
        size: int,
        preprocessing: str = "validation",
        seed: int = 0,
        boxes: Optional[Dict[str, List[Box]]] = None,
    ) -> None:
        super().__init__(classes)
        self._root, self._files, self._size = root, files, size
        self._preprocessing, self._seed, self._boxes = preprocessing, seed, boxes or {}

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The file."""
        return str(self._root / self._files[index][0])

    def load(self, key: Key) -> Tuple[torch.Tensor, int]:
        """Decode and preprocess one file."""
        epoch, index = key
        file, label = self._files[index]
        with Image.open(self._root / file) as opened:
            image = opened.convert("RGB")
        generator = sample_generator(self._seed, epoch, index)
        if self._preprocessing == "validation":
            return resize_and_centre_crop(image, self._size), label
        if self._preprocessing in ("standard", "autoaugment"):
            pixels = crop_and_flip(image, self._size, self._boxes.get(Path(file).name, []), generator)
            return auto_augment(pixels, generator) if self._preprocessing == "autoaugment" else pixels, label
        return augment_array(resize(image, self._size), self._preprocessing, generator), label


class FolderSource(Source):
    """`PATH/train/CLASS/IMAGE`, and `PATH/val/CLASS/IMAGE` or the like.

    `num_classes` is how many classes there have to be, where that is known.
    """

    def __init__(self, path: str, bounding_boxes: str = "", num_classes: Optional[int] = None) -> None:
        self._path, self._boxes, self._num_classes = path, bounding_boxes, num_classes

    def facts(self) -> Facts:
        """File names are counted; no file is opened."""
        root, classes = self._training_folder()
        return Facts(len(list_images(root, classes, range(len(classes)))), tuple(classes))

    def training_set(self, size: int, preprocessing: str, seed: int) -> FolderImages:
        """Pictures under train/."""
        root, classes = self._training_folder()
        files = list_images(root, classes, range(len(classes)))
        return FolderImages(root, files, classes, size, preprocessing, seed, read_bounding_boxes(self._boxes))

    def validation_set(self, size: int, classes: Optional[Sequence[str]]) -> FolderImages:
        """Pictures under val/; train/ is looked at for the classes alone, where they are not given."""
        root = self._validation_folder()
        known = list(classes) if classes is not None else self._training_folder()[1]
        names = subfolders(root)
        return FolderImages(root, list_images(root, names, labels_in(known, names, str(root))), known, size)

    def _training_folder(self) -> Tuple[Path, List[str]]:
        root = Path(self._path) / "train"
        if not self._path or not root.is_dir():
            raise self._missing()
        classes = subfolders(root)
        if len(classes) < 2:
            raise DataError(f"{root} has {len(classes)} class folders, expected at least 2")
        if self._num_classes not in (None, len(classes)):
            raise DataError(
                f"{root} has {len(classes)} classes, ImageNet has {self._num_classes}; for other class folders use --dataset folder"
            )
        return root, classes

    def _validation_folder(self) -> Path:
        folders = [Path(self._path) / name for name in VALIDATION_FOLDERS if (Path(self._path) / name).is_dir()]
        if not self._path or not folders:
            raise self._missing()
        return folders[0]

    def _missing(self) -> DataError:
        root = Path(self._path)
        found = f"found: {', '.join(sorted(p.name for p in root.iterdir())[:8])}" if self._path and root.is_dir() else "nothing there"
        return DataError(
            f"no class folders under {self._path or 'an empty --data-path'}: expected {root / 'train'}/CLASS/IMAGE and "
            f"{root / 'val'}/CLASS/IMAGE ({found})"
        )


def subfolders(root: Path) -> List[str]:
    """Names of the folders in a folder, sorted."""
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir())


def list_images(root: Path, folders: Sequence[str], labels: Sequence[int]) -> List[Tuple[str, int]]:
    """Pictures under these folders of `root`: path from there, and the folder's label; DataError where there are none."""
    files = [
        (str(path.relative_to(root)), label)
        for name, label in zip(folders, labels)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in EXTENSIONS
    ]
    if not files:
        raise DataError(f"no images in {root}: expected one folder for each class with {', '.join(sorted(EXTENSIONS))} files in it")
    return files


def read_bounding_boxes(path: str) -> Dict[str, List[Box]]:
    """Objects by file name from a CSV of `file, xmin, ymin, xmax, ymax` in shares of the image; DataError names a bad line."""
    boxes: Dict[str, List[Box]] = {}
    if not path:
        return boxes
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                try:
                    left, top, right, bottom = (float(value) for value in row[1:5])
                except ValueError:
                    if number == 1:
                        continue  # a heading
                    raise DataError(f"{path}, line {number}: expected file, xmin, ymin, xmax, ymax, got {row}") from None
                boxes.setdefault(Path(row[0]).name, []).append((left, top, right, bottom))
    except OSError as error:
        raise DataError(f"--bounding-boxes {path} cannot be read: {error.strerror}") from error
    return boxes
