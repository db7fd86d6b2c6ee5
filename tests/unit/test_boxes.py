"""Bounding boxes: shares of a picture by file, or the line is named."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from datasets.boxes import read_bounding_boxes
from datasets.entries import PictureFiles
from datasets.errors import DataError

FILES = PictureFiles(Path("/data/train"), [("cat/a.JPEG", 0), ("cat/b.JPEG", 0), ("dog/c.JPEG", 1), ("dog/a.png", 1)])


def read(tmp_path, text, files=FILES):
    path = Path(tmp_path) / "boxes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_bounding_boxes(str(path), files)


def test_boxes_are_found_by_name_or_path_and_a_heading_is_skipped(tmp_path):
    heading = "file,xmin,ymin,xmax,ymax\n"
    lines = "b.JPEG,0.1,0.2,0.5,0.6\ndog/c.JPEG,0,0,1,1\nb.JPEG,0.5,0.5,1,1\n\nunknown.JPEG,0,0,1,1\n"
    for text in (lines, heading + lines, b"\xef\xbb\xbf" + (heading + lines).encode(), lines.replace("\n", "\r\n")):
        boxes = read(tmp_path, text)
        assert [boxes.of(index) for index in range(4)] == [[], [(0.1, 0.2, 0.5, 0.6), (0.5, 0.5, 1, 1)], [(0, 0, 1, 1)], []]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.JPEG,12,30,200,180", "shares of the picture, from 0 to 1, got 12, 30, 200, 180: divide pixels"),
        ("a.JPEG,0.5,0.1,0.2,0.9", "xmin < xmax and ymin < ymax"),
        ("a.JPEG,0.1,0.9,0.2,0.9", "xmin < xmax and ymin < ymax"),
        ("a.JPEG,nan,0,1,1", "finite"),
        ("a.JPEG,0,0,inf,1", "finite"),
        ("a.JPEG,-0.1,0,1,1", "from 0 to 1"),
        ("a.JPEG,0,0,1", "expected file, xmin, ymin, xmax, ymax"),
        ("a.JPEG,0,0,1,1,cat", "expected file, xmin, ymin, xmax, ymax"),
        ("a.JPEG,0,0,1,one", "expected file, xmin, ymin, xmax, ymax"),
        ("a.JPEG;0;0;1;1", "expected file, xmin, ymin, xmax, ymax"),
        (f"a.JPEG,{'9' * 5000},0,1,1", "finite|from 0 to 1"),
    ],
)
def test_a_line_that_is_no_box_is_named(tmp_path, line, reason):
    with pytest.raises(DataError, match=rf"boxes.csv, line 2: .*({reason})") as caught:
        read(tmp_path, f"b.JPEG,0,0,1,1\n{line}\n")
    assert len(str(caught.value)) < 300


def test_a_name_of_several_pictures_is_refused(tmp_path):
    files = PictureFiles(Path("/data"), [("cat/1.jpg", 0), ("dog/1.jpg", 1)])
    with pytest.raises(DataError, match="line 1: several pictures are called 1.jpg, state CLASS/1.jpg"):
        read(tmp_path, "1.jpg,0,0,1,1\n", files)
    assert read(tmp_path, "dog/1.jpg,0,0,0.5,1\n", files).of(1) == [(0, 0, 0.5, 1)]


@pytest.mark.parametrize("text", ["", "other.JPEG,0,0,1,1\n", "file,xmin,ymin,xmax,ymax\n"])
def test_boxes_of_other_pictures_are_no_boxes(tmp_path, text):
    with pytest.raises(DataError, match="no line for any of the 4 pictures in /data/train"):
        read(tmp_path, text)


def test_what_is_no_table_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_bounding_boxes(str(tmp_path / "none.csv"), FILES)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_bounding_boxes(str(tmp_path), FILES)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.lists(st.sampled_from("a.JPEG b.JPEG 0 1 0.5 nan inf -1 1e400 7 x \" ' \x00 é".split(" ")), max_size=6), max_size=5
        ).map(lambda rows: "\n".join(",".join(row) for row in rows).encode()),
    )
)
def test_any_bytes_are_boxes_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        try:
            boxes = read(folder, content)
        except DataError as error:
            assert "boxes.csv" in str(error) and "\n" not in str(error)
        else:
            assert boxes.starts[-1] == len(boxes.boxes) > 0
            assert np.isfinite(boxes.boxes).all()
            for left, top, right, bottom in boxes.boxes:
                assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and math.isfinite(left + right)
