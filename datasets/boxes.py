"""Bounding boxes of objects, which training crops have to cover a part of."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from .entries import PictureFiles, printable
from .errors import DataError
from .pictures import Box

COLUMNS = "file, xmin, ymin, xmax, ymax"


class BoundingBoxes(NamedTuple):
    """Boxes of all images in a row, shares of the picture [M, 4], and where those of each image begin [N + 1]."""

    boxes: np.ndarray
    starts: np.ndarray

    def of(self, index: int) -> List[Box]:
        """The boxes of one image."""
        return [(left, top, right, bottom) for left, top, right, bottom in self.boxes[self.starts[index] : self.starts[index + 1]].tolist()]


def read_bounding_boxes(path: str, files: PictureFiles) -> BoundingBoxes:
    """The boxes of these pictures from a CSV of `file, xmin, ymin, xmax, ymax`, in shares of the picture as it is looked at.

    A file is a path below the training folder, or a name that only one picture has.

    Raises:
        DataError: the file cannot be read, names a line that is no box, or has none for any of the pictures.
    """
    by_name: Dict[str, List[Box]] = {}
    lines: Dict[str, int] = {}
    for number, name, box in _rows(path):
        by_name.setdefault(name, []).append(box)
        lines.setdefault(name, number)
    found: List[Box] = []
    starts, matched = [0], set()
    for index in range(len(files)):
        relative = files.relative(index)
        name = relative if relative in by_name else relative.rsplit("/", 1)[-1]
        if name in by_name:
            if name in matched:
                raise DataError(f"{path}, line {lines[name]}: several pictures are called {printable(name)}, state CLASS/{printable(name)}")
            matched.add(name)
            found += by_name[name]
        starts.append(len(found))
    if not found:
        raise DataError(f"{path} has no line for any of the {len(files)} pictures in {files.root}: expected {COLUMNS}")
    return BoundingBoxes(np.array(found, np.float64), np.array(starts, np.int64))


def _rows(path: str) -> Iterator[Tuple[int, str, Box]]:
    """Line number, file and box of each line; a first line without numbers is a heading."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if row and not (reader.line_num == 1 and _is_heading(row)):
                    yield reader.line_num, str(Path(row[0])), _box(row, f"{path}, line {reader.line_num}")
    except OSError as error:
        raise DataError(f"--bounding-boxes {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--bounding-boxes {path} is no CSV of {COLUMNS}: {error}") from error


def _is_heading(row: List[str]) -> bool:
    return not any(_is_number(value) for value in row[1:])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _box(row: List[str], place: str) -> Box:
    if len(row) != 5 or not all(map(_is_number, row[1:])):
        raise DataError(f"{place}: expected {COLUMNS}, got {_cut(','.join(row))}")
    left, top, right, bottom = map(float, row[1:])
    values = _cut(", ".join(row[1:]))
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise DataError(f"{place}: a box has finite numbers, got {values}")
    if max(left, top, right, bottom) > 1 or min(left, top, right, bottom) < 0:
        raise DataError(f"{place}: a box is in shares of the picture, from 0 to 1, got {values}: divide pixels by width and height")
    if left >= right or top >= bottom:
        raise DataError(f"{place}: expected xmin < xmax and ymin < ymax, got {values}")
    return left, top, right, bottom


def _cut(text: str) -> str:
    return printable(text if len(text) <= 80 else f"{text[:77]}...")
