"""idx files: read as they are, or refused in one line."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from datasets.errors import DataError
from datasets.idx import idx_shape, read_idx


def idx_bytes(values):
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_values_and_shape_are_read_packed_or_not(tmp_path, packed):
    raw = idx_bytes(VALUES)
    (tmp_path / ("x.gz" if packed else "x")).write_bytes(gzip.compress(raw) if packed else raw)
    assert np.array_equal(read_idx(str(tmp_path), "x"), VALUES)
    assert idx_shape(str(tmp_path), "x") == (2, 3, 4)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), packed=st.booleans())
def test_damaged_files_are_refused_by_name_or_read_as_what_they_state(data, packed):
    """Bytes cut, changed and added, before and after packing: the result has the stated shape, or one line names the file."""
    raw = bytearray(idx_bytes(VALUES))
    whole = data.draw(st.booleans())
    target = raw if whole or not packed else bytearray(gzip.compress(bytes(raw)))
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(target) - 1), st.integers(0, 255)), max_size=4)):
        target[position] = value
    del target[data.draw(st.integers(0, len(target))) :]
    target += data.draw(st.binary(max_size=5))
    content = gzip.compress(bytes(target)) if packed and target is raw else bytes(target)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ("x.gz" if packed else "x")).write_bytes(content)
        try:
            values = read_idx(folder, "x")
        except DataError as error:
            assert str(Path(folder) / "x") in str(error) and "\n" not in str(error)
        else:
            assert values.dtype == np.uint8 and values.shape == idx_shape(folder, "x")


def test_a_header_that_states_more_than_there_is_allocates_nothing(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack(">HBB4I", 0, 8, 4, *[2**32 - 1] * 4) + b"abc")
    with pytest.raises(DataError, match="states 4294967295 x 4294967295 x 4294967295 x 4294967295 bytes and has 3"):
        read_idx(str(tmp_path), "x")


def test_a_folder_or_nothing_in_its_place_is_said(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="no x or x.gz in"):
        read_idx(str(tmp_path), "x")
