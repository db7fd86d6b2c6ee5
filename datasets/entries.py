"""What lies in folders: class folders, and the pictures under them, by name alone; no file is opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Sequence, Set, Tuple

import numpy as np

from .errors import DataError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif"}
# Folders that systems make for themselves, beside those whose names begin with a dot: macOS's archives, Windows, Synology, ext4.
NO_DATA = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"}


class PictureFiles:
    """Paths below a root, and labels: as many bytes as the names have, and 12 for each, which processes share without copying."""

    def __init__(self, root: Path, files: Iterable[Tuple[str, int]]) -> None:
        self.root = root
        names, labels, lengths = bytearray(), [], []
        for path, label in files:
            encoded = os.fsencode(path)
            names += encoded
            lengths.append(len(encoded))
            labels.append(label)
        self._names = bytes(names)
        self._ends = np.cumsum(np.array(lengths, np.int64))
        self.labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def relative(self, index: int) -> str:
        """Path below the root."""
        return os.fsdecode(self._names[self._ends[index - 1] if index else 0 : self._ends[index]])

    def path(self, index: int) -> Path:
        """Where a picture is."""
        return self.root / self.relative(index)


class Part(NamedTuple):
    """A share of the pictures of each class: those held out for validation, or the others."""

    share: float
    is_held_out: bool


def class_folders(root: Path) -> List[str]:
    """Names of the folders in a folder that may be classes, sorted; DataError where it cannot be looked into."""
    return [entry.name for entry in _entries(str(root)) if _is_folder(entry)]


def find_pictures(root: Path, folders: Sequence[str], labels: Sequence[int]) -> PictureFiles:
    """Pictures under these folders of `root`, in the order of their names, with each folder's label."""
    return PictureFiles(root, ((path, label) for folder, label in zip(folders, labels) for path in pictures_under(root, folder)))


def find_part(root: Path, folders: Sequence[str], labels: Sequence[int], part: Part) -> PictureFiles:
    """The same of one part of each folder's pictures."""
    chosen = ((path, label) for folder, label in zip(folders, labels) for path in split(list(pictures_under(root, folder)), part))
    return PictureFiles(root, chosen)


def split(paths: List[str], part: Part) -> List[str]:
    """One part of the pictures of a class.

    A picture is held out where the SHA-256 of its path below the data folder, as a number from 0 to 1, is below the share: so it stays in
    its part when others come or go. Where that leaves a part empty, the picture nearest to the share changes sides.
    """
    if len(paths) < 2:
        return [] if part.is_held_out else paths
    numbers = np.array([_number(path) for path in paths])
    is_held_out = numbers < part.share
    if not is_held_out.any():
        is_held_out[numbers.argmin()] = True
    elif is_held_out.all():
        is_held_out[numbers.argmax()] = False
    return [path for path, held in zip(paths, is_held_out) if held == part.is_held_out]


def _number(path: str) -> float:
    return int.from_bytes(hashlib.sha256(os.fsencode(path.replace(os.sep, "/"))).digest()[:8], "big") / 2**64


def pictures_under(root: Path, folder: str) -> Iterator[str]:
    """Paths below `root` of the pictures under a folder of it, each level sorted by name.

    Links to folders are followed; a folder is entered once, and never one that the first lies in, so that no link leads in circles.
    """
    seen = _identities_upwards(root / folder)
    open_folders = [(folder, iter(_entries(str(root / folder))))]
    while open_folders:
        prefix, entries = open_folders[-1]
        entry = next(entries, None)
        if entry is None:
            open_folders.pop()
        elif _is_folder(entry):
            identity = _identity(entry.path)
            if identity not in seen:
                seen.add(identity)
                open_folders.append((f"{prefix}/{entry.name}", iter(_entries(entry.path))))
        elif _is_picture(entry):
            yield f"{prefix}/{entry.name}"


def _entries(folder: str) -> List[os.DirEntry[str]]:
    """What lies in a folder and is no one's bookkeeping, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".") and e.name not in NO_DATA), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be looked into: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """A file with a picture's name; a link to nothing is one too, so that it is named when it cannot be read."""
    if os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
        return False
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _identity(path: str) -> Tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be looked into: {error.strerror}") from error
    return stat.st_dev, stat.st_ino


def _identities_upwards(folder: Path) -> Set[Tuple[int, int]]:
    """A folder and all that it lies in, by its path and by where links in it lead."""
    return {_identity(str(place)) for start in (folder.absolute(), folder.resolve()) for place in (start, *start.parents)}


def printable(path: str) -> str:
    """A path in one line that any output takes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
