"""How fast are pictures loaded, against decoding alone, and what do a million file names cost?

`python -m benchmarks.loading` makes folders of JPEGs of 400 and of 4,000 pixels from scikit-learn's photographs, and prints images/s of the
training loader beside those of as many processes that make the same random crops of the same files into 224 pixels and hand over nothing,
in turns: what is left is tensors, flips, batches and their way to the main process.
`python -m benchmarks.loading --names 1281167` makes so many empty files in 1,000 class folders, as ImageNet has, and prints the seconds and
the memory that their list takes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
import poptorch
from config import DataConfig
from datasets.entries import find_pictures
from datasets.factory import build_training_set
from datasets.images import ImageSet
from datasets.loader import build_training_loader
from datasets.pictures import open_picture
from datasets.preprocessing import random_crop_box
from datasets.randomness import sample_generator

SIZE = 224
BATCH = 32


class DecodedAlone(ImageSet):
    """The same crops of the same files, and nothing done with them."""

    def __init__(self, files: List[Path]) -> None:
        super().__init__(["all"], 1)
        self._files = files
        self._nothing = torch.zeros(3, 1, 1, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The file."""
        return str(self._files[index])

    def load(self, key: Any) -> Tuple[torch.Tensor, int]:
        """Decode a file and resize its crop."""
        epoch, index = key
        with open_picture(self._files[index]) as picture:
            picture.part(random_crop_box(picture.width, picture.height, [], sample_generator(0, epoch, index)), SIZE)
        return self._nothing, 0


def main() -> int:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes that load (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each measurement; the median counts (default 5)")
    parser.add_argument("--pixels", type=int, nargs="*", default=[400, 4000], help="longer sides of the JPEGs (default 400 4000)")
    parser.add_argument("--names", type=int, default=0, metavar="FILES", help="measure a list of so many names instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if arguments.names:
            print(measure_names(Path(place), arguments.names))
            return 0
        for pixels in arguments.pixels:
            folder = Path(place) / str(pixels)
            make_pictures(folder, pixels, count=256 if pixels <= 1000 else 64)
            alone, loaded = measure_loading(folder, arguments.workers, arguments.rounds)
            print(
                f"JPEGs of {pixels} pixels, {arguments.workers} workers: decoding alone {alone:.1f} images/s, the training loader "
                f"{loaded:.1f}, {loaded / alone:.2f} of it"
            )
    return 0


def make_pictures(folder: Path, pixels: int, count: int) -> None:
    """Class folders of JPEGs whose longer side has so many pixels: scikit-learn's two photographs, resized."""
    for part in ("train", "val"):
        for name, image in zip(("china", "flower"), load_sample_images().images):
            (folder / part / name).mkdir(parents=True)
            resized = Image.fromarray(image).resize((pixels, pixels * 427 // 640), Image.Resampling.BICUBIC)
            for index in range(count // 2 if part == "train" else 1):
                resized.save(folder / part / name / f"{index}.jpg", quality=90)


def measure_loading(folder: Path, workers: int, rounds: int) -> Tuple[float, float]:
    """Images/s of decoding alone and of the training loader, medians of rounds in turns."""
    images = build_training_set(DataConfig(dataset="folder", data_path=str(folder), image_size=SIZE), seed=0)
    alone = DecodedAlone([Path(images.name(index)) for index in range(len(images))])
    iterators = [batches(of, workers) for of in (alone, images)]
    rates: List[List[float]] = [[], []]
    for _ in range(rounds + 1):  # the first round starts the processes
        for iterator, measured in zip(iterators, rates):
            measured.append(next(iterator))
    return statistics.median(rates[0][1:]), statistics.median(rates[1][1:])


def batches(images: ImageSet, workers: int) -> Iterator[float]:
    """Images/s of one epoch after another."""
    loader, _ = build_training_loader(images, poptorch.Options(), BATCH, seed=0, num_workers=workers)
    while True:
        start, count = time.perf_counter(), 0
        for pixels, _, _ in loader:
            count += len(pixels)
        yield count / (time.perf_counter() - start)


def measure_names(folder: Path, files: int) -> str:
    """Seconds and memory of the list of so many pictures in 1,000 class folders."""
    classes = [f"n{number:08d}" for number in range(1000)]
    for number, name in enumerate(classes):
        (folder / name).mkdir()
        for index in range(number, files, 1000):
            (folder / name / f"{name}_{index}.JPEG").touch()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = find_pictures(folder, classes, range(1000))
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = sum(sys.getsizeof(value) for value in vars(found).values()) / 2**20
    return f"{len(found)} names: {seconds:.1f} s, {kept:.0f} MiB kept, {(after - before) / 2**10:.0f} MiB at the most while they are read"


if __name__ == "__main__":
    sys.exit(main())
