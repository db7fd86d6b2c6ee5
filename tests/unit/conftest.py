"""Pictures in class folders, for the tests that read files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


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
