"""idx files of unsigned bytes: the format of MNIST and of the data sets that took it over.

Format: two zero bytes, type 8, number of dimensions, each dimension as a big-endian 32-bit integer, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Tuple, cast

import numpy as np

from .errors import DataError

UNSIGNED_BYTES = 8
DAMAGED = (OSError, EOFError, struct.error, zlib.error)  # what reading and unpacking raise


def idx_shape(folder: str, name: str) -> Tuple[int, ...]:
    """The dimensions that an idx file states; errors as of `read_idx`."""
    path = find_idx(folder, name)
    try:
        with _opened(path) as file:
            return _read_shape(file, path)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_idx(folder: str, name: str) -> np.ndarray:
    """An idx file, `name` or `name.gz`, as uint8; DataError where there is none or it is damaged."""
    path = find_idx(folder, name)
    try:
        with _opened(path) as file:
            shape = _read_shape(file, path)
            values = file.read()
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(values) != math.prod(shape):
        raise DataError(f"{path} states {' x '.join(map(str, shape))} bytes and has {len(values)}: cut short, or something else")
    return np.frombuffer(values, np.uint8).reshape(shape).copy()


def find_idx(folder: str, name: str) -> Path:
    """Where an idx file is; DataError where it is not."""
    found = [path for path in (Path(folder) / name, Path(folder) / f"{name}.gz") if path.is_file()]
    if not found or not folder:
        raise DataError(f"no {name} or {name}.gz in {folder or 'an empty --data-path'}: --data-path takes the folder with the idx files")
    return found[0]


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _read_shape(file: BinaryIO, path: Path) -> Tuple[int, ...]:
    zeros, kind, num_dims = struct.unpack(">HBB", file.read(4))
    if zeros or kind != UNSIGNED_BYTES:
        raise DataError(f"{path} is not an idx file of unsigned bytes")
    return struct.unpack(f">{num_dims}I", file.read(4 * num_dims))
