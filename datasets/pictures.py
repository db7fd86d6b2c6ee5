"""From a picture file to RGB pixels: any mode, orientation and transparency; a damaged file is said to be one."""

from __future__ import annotations

import contextlib
import math
import warnings
from pathlib import Path
from typing import Iterator, Tuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from .errors import UnreadableImage

Box = Tuple[float, float, float, float]  # left, top, right, bottom

ORIENTATION = 0x0112  # tag of EXIF 2.32, table 4
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
BITS_PER_SAMPLE = 258  # tag of TIFF 6.0
WHITE = (255, 255, 255, 255)


class Picture:
    """A picture as it is looked at, of which parts can be had.

    A JPEG is decoded when a part is asked for, at the smallest of the scales 1, 1/2, 1/4 and 1/8 that still has the pixels that the part
    needs (libjpeg's scaled decoding); other files have no such scales. So one part of a picture can be asked for, once.
    """

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        if not isinstance(image, JpegImageFile):
            image.load()  # some formats tell their orientation only then
        self._orientation = _orientation(image)
        width, height = image.size
        self.width, self.height = (height, width) if self._orientation in SIDEWAYS else (width, height)

    def part(self, box: Box, size: int) -> Image.Image:
        """A box in pixels of the picture, bilinearly resized to RGB size x size; UnreadableImage where the file is damaged."""
        with _decoding():
            scale = self._draft(size / (box[2] - box[0]), size / (box[3] - box[1]))
            self._image.load()
            image = to_rgb(self._image)
            if self._orientation in UPRIGHT:
                image = image.transpose(UPRIGHT[self._orientation])
        left, top, right, bottom = (side / scale for side in box)
        return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, min(right, image.width), min(bottom, image.height)))

    def _draft(self, across: float, down: float) -> float:
        """Have a JPEG decoded no larger than these factors of its sides need; how many times smaller that is."""
        if not isinstance(self._image, JpegImageFile):
            return 1.0
        if self._orientation in SIDEWAYS:
            across, down = down, across
        width = self._image.width
        drafted = self._image.draft("RGB", (max(1, math.ceil(width * across)), max(1, math.ceil(self._image.height * down))))
        return width / drafted[1][2] if drafted else 1.0


@contextlib.contextmanager
def open_picture(path: Path) -> Iterator[Picture]:
    """A file as a Picture; UnreadableImage says why it is none."""
    with _decoding():
        image = Image.open(path)
    with image:
        with _decoding():
            picture = Picture(image)
        yield picture


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Any exception of a decoder is the file's fault: on damaged bytes they raise what their own state leads to, and warn as they like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Image.UnidentifiedImageError as error:
            raise UnreadableImage("no picture of a known format") from error
        except Exception as error:  # noqa: BLE001
            raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001  a picture with damaged notes is still a picture
        return 1
    return value if value in UPRIGHT else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Pixels of any mode as RGB of 8 bits; transparent ones go onto white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits as 8 bits.

    16 bits (or the 12 that a TIFF may state) are scaled by the range of their type. Wider integers and floats have no usual range: they are
    scaled from their own smallest to their own largest value.
    """
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        low, high = 0.0, 2.0 ** _bits(image) - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits in a wider type
        low, high = 0.0, 65535.0
    else:
        low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise UnreadableImage("it has values that are not finite")
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _bits(image: Image.Image) -> int:
    stated = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    return int(stated[0] if isinstance(stated, tuple) else stated)
