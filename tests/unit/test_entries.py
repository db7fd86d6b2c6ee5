"""What lies in folders: classes and pictures by name, links, circles, special files, and the held-out share."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from datasets.entries import Part, PictureFiles, class_folders, find_part, find_pictures, pictures_under, printable, split
from datasets.errors import DataError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_pictures_are_files_with_a_pictures_name_sorted_level_by_level(tmp_path):
    touch(*(tmp_path / "a" / name for name in ("b.png", "a.JPG", "a/z.jpeg", "a.txt", "x.tiff/inside.gif", "noname", "x.webp.bak")))
    assert list(pictures_under(tmp_path, "a")) == ["a/a/z.jpeg", "a/a.JPG", "a/b.png", "a/x.tiff/inside.gif"]


def test_hidden_and_system_files_and_folders_are_no_data(tmp_path):
    touch(*(tmp_path / "cat" / name for name in ("._x.png", ".x.jpg", ".ipynb_checkpoints/x.png", "@eaDir/x.jpg", "x.png")))
    touch(*(tmp_path / name / "x.png" for name in (".ipynb_checkpoints", "__MACOSX", "lost+found", ".git", "dog")))
    touch(tmp_path / "loose.png")
    assert class_folders(tmp_path) == ["cat", "dog"]
    assert list(pictures_under(tmp_path, "cat")) == ["cat/x.png"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(
        tmp_path / "photos" / "1.png", tmp_path / "more" / "2.png", tmp_path / "data" / "dog" / "3.png", tmp_path / "data" / "cat" / "0.png"
    )
    data = tmp_path / "data"
    os.symlink(tmp_path / "photos", data / "bird")  # a class that is a link
    os.symlink(tmp_path / "more", data / "cat" / "linked")
    os.symlink(data / "cat", data / "cat" / "itself")
    os.symlink(data, data / "cat" / "up")  # would make all pictures cats
    os.symlink("..", data / "cat" / "relative")
    os.symlink("/", data / "cat" / "root")
    os.symlink(data / "cat", tmp_path / "more" / "back")
    os.symlink("knot", data / "knot")
    os.symlink(data / "dog" / "3.png", data / "cat" / "file.png")
    assert class_folders(data) == ["bird", "cat", "dog"]
    assert list(pictures_under(data, "cat")) == ["cat/0.png", "cat/file.png", "cat/linked/2.png"]
    assert list(pictures_under(data, "bird")) == ["bird/1.png"]


def test_links_into_one_another_end(tmp_path):
    """Each of n folders links to all others: without remembering the folders, n! paths lead through them."""
    for index in range(12):
        touch(tmp_path / "x" / str(index) / f"{index}.png")
        for other in range(12):
            os.symlink(tmp_path / "x" / str(other), tmp_path / "x" / str(index) / f"to{other}")
    found = list(pictures_under(tmp_path, "x"))
    assert sorted(Path(path).name for path in found) == sorted(f"{index}.png" for index in range(12))


def test_special_files_are_no_pictures_and_a_link_to_nothing_is_one(tmp_path):
    touch(tmp_path / "a" / "x.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.symlink(tmp_path / "a" / "pipe.png", tmp_path / "a" / "pipelink.png")
    os.symlink("/dev/zero", tmp_path / "a" / "zero.png")
    os.symlink("moved", tmp_path / "a" / "y.png")  # named when it is read
    assert list(pictures_under(tmp_path, "a")) == ["a/x.png", "a/y.png"]


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be looked into: No such file"):
        class_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be looked into"):
        find_pictures(tmp_path, ["nowhere"], [0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12), st.integers(0, 999)), max_size=30))
def test_a_table_gives_back_names_and_labels(files):
    files = [(path, label) for path, label in files if not any(0xD800 <= ord(char) < 0xE000 for char in path)]
    table = PictureFiles(Path("/data"), files)
    for copy in (table, pickle.loads(pickle.dumps(table))):
        assert [(copy.relative(index), copy.labels[index]) for index in range(len(copy))] == files


def test_names_that_are_no_text_are_found_and_shown(tmp_path):
    touch(tmp_path / "a" / os.fsdecode(b"\xff\n.png"))
    files = find_pictures(tmp_path, ["a"], [3])
    assert files.path(0).is_file() and files.labels.tolist() == [3]
    shown = printable(files.relative(0))
    assert shown == "a/\\xff\\n.png" and shown.encode("utf-8").decode() == shown


def test_a_table_needs_little_more_than_the_names():
    """ImageNet's 1,281,167 names have 24 bytes each or so: the table about 36, lists of texts and labels about 150."""
    table = PictureFiles(Path("/data"), ((f"n01440764/n01440764_{index}.JPEG", 0) for index in range(10_000)))
    names = sum(len(f"n01440764/n01440764_{index}.JPEG") for index in range(10_000))
    assert sum(sys.getsizeof(part) for part in vars(table).values()) <= names + 12 * 10_000 + 1000


# ---- the held-out share

NAMES = st.lists(st.text("abc/09", min_size=1, max_size=8), min_size=2, max_size=60, unique=True)


@settings(max_examples=200, deadline=None)
@given(paths=NAMES, share=st.floats(0.01, 0.99))
def test_each_picture_is_in_one_part_and_no_part_is_empty(paths, share):
    held_out, kept = split(paths, Part(share, True)), split(paths, Part(share, False))
    assert sorted(held_out + kept) == sorted(paths)
    assert held_out and kept


@settings(max_examples=100, deadline=None)
@given(paths=NAMES, share=st.floats(0.01, 0.99), data=st.data())
def test_pictures_stay_in_their_part_when_others_come(paths, share, data):
    """Where both parts have pictures by their numbers alone; otherwise at most one changes sides."""
    fewer = data.draw(st.lists(st.sampled_from(paths), min_size=2, unique=True)) if len(paths) > 2 else paths
    before, after = set(split(fewer, Part(share, True))), set(split(paths, Part(share, True))) & set(fewer)
    assert len(before ^ after) <= 1


def test_the_share_is_met_on_many_and_known_for_one():
    """By hand: SHA-256 of 'cat/1.jpg' begins with these 8 bytes."""
    paths = [f"cat/{index}.jpg" for index in range(4000)]
    held_out = split(paths, Part(0.2, True))
    assert abs(len(held_out) / 4000 - 0.2) < 0.026  # 4 standard deviations of a binomial: 4 * sqrt(0.2 * 0.8 / 4000) = 0.0253
    first = int(hashlib.sha256(b"cat/1.jpg").hexdigest()[:16], 16) / 16**16
    assert ("cat/1.jpg" in held_out) == (first < 0.2)


def test_a_single_picture_trains():
    assert split(["a/x.png"], Part(0.9, False)) == ["a/x.png"] and split(["a/x.png"], Part(0.9, True)) == []


def test_parts_of_folders_keep_their_labels(tmp_path):
    touch(*(tmp_path / name / f"{index}.png" for name in ("cat", "dog") for index in range(20)))
    parts = [find_part(tmp_path, ["cat", "dog"], [5, 7], Part(0.25, held)) for held in (True, False)]
    assert sum(map(len, parts)) == 40
    for part in parts:
        assert [part.labels[index] == {"cat": 5, "dog": 7}[part.relative(index)[:3]] for index in range(len(part))] == [True] * len(part)
