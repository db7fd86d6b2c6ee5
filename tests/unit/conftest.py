"""Pictures in class folders and idx files, for the tests that read files."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from datasets.arrays import IDX_FILES


@pytest.fixture
def picture_folder(tmp_path):
    """Two classes with 12 + 4 pictures of different shapes and kinds."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 255, (40 + 8 * index, 50, 3), dtype=np.uint8)
                pixels[..., label] = 255
                image = Image.fromarray(pixels)
                (image.convert("L") if index == 1 else image).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return tmp_path


def idx_bytes(values):
    """An idx file of these unsigned bytes."""
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def write_idx_set():
    """Writes the four files of a set: bytes that count up, and labels that are all the same, or count up too."""

    def write(folder, shapes=((5, 28, 28), (5,), (2, 28, 28), (2,)), label=None):
        for name, shape in zip((*IDX_FILES["train"], *IDX_FILES["val"]), shapes):
            counted = (np.arange(np.prod(shape)) % 256).astype(np.uint8).reshape(shape)
            values = np.full(shape, label, np.uint8) if label is not None and "labels" in name else counted
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(values), 1))

    return write
