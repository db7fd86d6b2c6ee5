"""Pictures from files: modes, orientation, transparency, scaled decoding; damaged bytes are one line or right."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from datasets.errors import UnreadableImage
from datasets.pictures import ORIENTATION, open_picture, to_rgb

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)  # as it is looked at


def whole(path, size=None):
    """The file as looked at, as RGB values."""
    with open_picture(path) as picture:
        size = size or picture.width
        return np.asarray(picture.part((0, 0, picture.width, picture.height), size))


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


# ---- modes


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32768, 128), (257 * 77, 77), (256, 1)])  # value * 255 / 65535
def test_sixteen_bits_are_scaled(tmp_path, name, value, expected):
    path = saved(tmp_path, Image.fromarray(np.full((4, 4), value, np.uint16)), name)
    assert (whole(path) == expected).all()


def test_sixteen_bits_of_either_byte_order_are_the_same():
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    little = to_rgb(Image.fromarray(values))
    big = to_rgb(Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes()))
    assert np.array_equal(np.asarray(little)[..., 0].ravel(), np.arange(256))
    assert np.array_equal(np.asarray(little), np.asarray(big))


def test_sixteen_bits_in_a_wider_type_are_scaled_alike(tmp_path):
    """A portable grey map with 65,535 as its white is read into 32 bits."""
    (tmp_path / "x.ppm").write_bytes(b"P5 2 1 65535\n" + np.array([0, 32768], ">u2").tobytes())
    assert whole(tmp_path / "x.ppm", 2)[:, :, 0].tolist() == [[0, 128], [0, 128]]


def test_twelve_bits_are_scaled_by_what_the_file_states():
    image = Image.fromarray(np.full((2, 2), 4095, np.uint16))
    image.tag_v2 = {258: (12,)}
    assert (np.asarray(to_rgb(image)) == 255).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_wider_values_are_scaled_from_their_smallest_to_their_largest(tmp_path, dtype):
    values = np.array([[-1000, 0], [0, 1000]], dtype)
    path = saved(tmp_path, Image.fromarray(values), "x.tif")
    assert whole(path)[..., 0].tolist() == [[0, 128], [128, 255]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_no_picture(tmp_path, value):
    values = np.zeros((3, 3), np.float32)
    values[1, 1] = value
    path = saved(tmp_path, Image.fromarray(values), "x.tif")
    with pytest.raises(UnreadableImage, match="not finite"):
        whole(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "La", "RGBa"])
def test_white_is_white_in_every_mode(mode):
    if mode in ("I", "F", "I;16"):
        dtype = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        image = Image.fromarray(np.array([[0, 65535]], dtype))
    elif mode in ("La", "RGBa"):
        image = Image.new(mode[:-1] + "A", (2, 1), (255,) * len(mode)).convert(mode)
    else:
        image = Image.new("RGB", (2, 1), WHITE).convert("L" if mode in ("PA", "LA") else "RGB").convert(mode)
    assert image.mode == mode
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and rgb.getpixel((1, 0)) == WHITE


# ---- transparency


def test_transparency_goes_on_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 128)  # 255 - 128 = 127
    image = Image.fromarray(pixels)
    for name in ("x.png", "x.webp", "x.tif"):
        options = {"lossless": True} if name == "x.webp" else {}
        values = whole(saved(tmp_path, image, name, **options)).tolist()
        assert values == [[[255, 0, 0], [127, 127, 127]], [[255, 255, 255], [255, 255, 255]]]


def test_a_transparent_colour_of_palettes_and_grey_goes_on_white(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    grey = Image.fromarray(np.array([[0, 99]], np.uint8))
    for name, image, kept in (("p.png", palette, [40, 50, 60]), ("p.gif", palette, [40, 50, 60]), ("g.png", grey, [99, 99, 99])):
        values = whole(saved(tmp_path, image, name, transparency=0))
        assert values[0].tolist() == [[255, 255, 255], kept]


# ---- orientation


def stored(orientation):
    """The pixels that a camera stores for CORNERS under an orientation: the inverse of what a viewer does (EXIF 2.32)."""
    return {
        1: CORNERS,
        2: CORNERS[:, ::-1],
        3: CORNERS[::-1, ::-1],
        4: CORNERS[::-1],
        5: CORNERS.transpose(1, 0, 2),
        6: np.rot90(CORNERS, 1),
        7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(CORNERS, -1),
    }[orientation]


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, name, orientation):
    pixels = stored(orientation).repeat(32, 0).repeat(16 if orientation > 4 else 64, 1)  # 128 x 64, or 32 x 64 stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(pixels)), name, exif=exif)
    with open_picture(path) as picture:
        assert (picture.width, picture.height) == ((64, 32) if orientation > 4 else (128, 64))
        seen = np.asarray(picture.part((0, 0, picture.width, picture.height), 8)).astype(int)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert abs(seen[1 + 5 * row, 1 + 5 * column] - CORNERS[row, column]).max() < 40  # JPEG's colours are half as fine


def test_damaged_notes_do_not_lose_the_picture(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (8, 8), WHITE), "x.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert (whole(path) > 250).all()


# ---- sizes


def gradient(width, height):
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("box", "size", "scale"),
    [
        ((0, 0, 1600, 1200), 100, 8),  # both sides need 1/12 or less
        ((400, 300, 1200, 900), 100, 4),  # 800 x 600: 600 / 100 = 6
        ((100, 100, 350, 340), 100, 2),
        ((100, 100, 280, 270), 100, 1),
        ((0, 0, 1600, 1200), 2000, 1),
    ],
)
def test_large_jpegs_are_decoded_at_the_scale_that_is_needed_and_no_smaller(tmp_path, monkeypatch, orientation, box, size, scale):
    image, exif = gradient(1600, 1200), Image.Exif()
    exif[ORIENTATION] = orientation
    turned = image.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else image
    path = saved(tmp_path, turned, "x.jpg", quality=95, exif=exif)
    decoded = []
    monkeypatch.setattr("datasets.pictures.to_rgb", lambda image: decoded.append(image.size) or to_rgb(image))
    with open_picture(path) as picture:
        assert (picture.width, picture.height) == (1600, 1200)
        part = np.asarray(picture.part(box, size)).astype(int)
    assert sorted(decoded[0]) == [1200 // scale, 1600 // scale]
    exact = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box)).astype(int)
    assert abs(part - exact).max() <= 6  # JPEG's own error on a gradient is 3


def test_odd_sizes_do_not_move_the_part(tmp_path):
    """A JPEG of 1,607 x 1,203 pixels decoded at 1/8 has 201 x 151: the last ones are partly beyond the picture."""
    image = gradient(1607, 1203)
    path = saved(tmp_path, image, "x.jpg", quality=95)
    box = (800, 600, 1607, 1203)
    with open_picture(path) as picture:
        part = np.asarray(picture.part(box, 64)).astype(int)
    assert abs(part - np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR, box=box)).astype(int)).max() <= 6


def test_a_picture_beyond_the_decoders_limit_is_named_not_raised(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (64, 64)), "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 4,096 pixels are above twice that: Pillow's error
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        whole(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # and these above once: its warning, which is no error
    assert whole(path).shape == (64, 64, 3)


# ---- damage


def encoded(kind):
    stream = io.BytesIO()
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(stream, kind, **({} if kind in ("GIF", "BMP", "PPM") else {"exif": exif}))
    return stream.getvalue()


KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
WHOLE = {kind: encoded(kind) for kind in KINDS}


@settings(max_examples=700, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_damaged_pictures_are_pixels_or_one_line(data, kind):
    content = bytearray(WHOLE[kind])
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, min(len(content) - 1, 400)), st.integers(0, 255)), max_size=6)):
        content[position] = value
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(bytes(content))
        try:
            with open_picture(path) as picture:
                part = picture.part((0, 0, picture.width, picture.height), 8)
        except UnreadableImage as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert (part.mode, part.size) == ("RGB", (8, 8))


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a picture", b"\xff\xd8\xff", b"GIF89a", b"<svg/>"])
def test_what_is_no_picture_is_said(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage):
        whole(tmp_path / "x.jpg")


def test_a_file_that_may_not_be_read_or_is_a_folder_is_said(tmp_path):
    with pytest.raises(UnreadableImage, match="Is a directory"):
        whole(tmp_path)
    os.symlink("nowhere", tmp_path / "x.png")
    with pytest.raises(UnreadableImage, match="No such file"):
        whole(tmp_path / "x.png")
