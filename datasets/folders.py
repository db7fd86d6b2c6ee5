"""Data sets in class folders: ImageNet, and a user's own pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from PIL import Image

from .errors import DataError
from .images import ImageSet, Key
from .preprocessing import Box, augment_array, auto_augment, crop_and_flip, resize, resize_and_centre_crop, sample_generator

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif"}
VALIDATION_FOLDERS = ("val", "validation", "test")


class FolderImages(ImageSet):
    """Images in one folder for each class, in the order of the folders' names."""

    def __init__(
        self, root: Path, size: int, is_training: bool, preprocessing: str, seed: int, boxes: Dict[str, List[Box]], classes: List[str]
    ) -> None:
        super().__init__(classes)
        self._root, self._size, self._is_training = root, size, is_training
        self._preprocessing, self._seed, self._boxes = preprocessing, seed, boxes
        self._files: List[Tuple[str, int]] = [
            (str(path.relative_to(root)), label)
            for label, name in enumerate(classes)
            for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in EXTENSIONS
        ]
        if not self._files:
            raise DataError(f"no images in {root}: expected one folder for each class with {', '.join(sorted(EXTENSIONS))} files in it")

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
        if not self._is_training or self._preprocessing == "validation":
            return resize_and_centre_crop(image, self._size), label
        if self._preprocessing in ("standard", "autoaugment"):
            pixels = crop_and_flip(image, self._size, self._boxes.get(Path(file).name, []), generator)
            return auto_augment(pixels, generator) if self._preprocessing == "autoaugment" else pixels, label
        return augment_array(resize(image, self._size), self._preprocessing, generator), label


def class_folders(path: str) -> Tuple[Path, Path, List[str]]:
    """Training folder, validation folder and class names under a data path; DataError says what was expected where."""
    root = Path(path)
    validation = next((root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()), None)
    if not path or not (root / "train").is_dir() or validation is None:
        found = "nothing there" if not path or not root.is_dir() else f"found: {', '.join(sorted(p.name for p in root.iterdir())[:8])}"
        raise DataError(
            f"no class folders under {path or 'an empty --data-path'}: expected {root / 'train'}/CLASS/IMAGE and "
            f"{root / 'val'}/CLASS/IMAGE ({found})"
        )
    classes = sorted(folder.name for folder in (root / "train").iterdir() if folder.is_dir())
    unknown = sorted(folder.name for folder in validation.iterdir() if folder.is_dir() and folder.name not in classes)
    if len(classes) < 2 or unknown:
        raise DataError(
            f"{root / 'train'} has {len(classes)} class folders, expected at least 2"
            + (f"; {validation} has classes that training lacks: {', '.join(unknown[:5])}" if unknown else "")
        )
    return root / "train", validation, classes


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
