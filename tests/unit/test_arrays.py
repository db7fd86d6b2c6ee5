"""Data sets in memory: digits, idx files, generated."""

from __future__ import annotations

import pytest
import torch

from config import DataConfig
from datasets.arrays import load_digits
from datasets.errors import DataError
from datasets.factory import build_image_sets, build_training_set


def test_digits_are_the_real_ones_with_a_fixed_stratified_split():
    train, validation = load_digits(is_training=True), load_digits(is_training=False)
    assert (len(train.labels), len(validation.labels)) == (1437, 360)
    assert torch.bincount(validation.labels).min() >= 34  # 360 / 10, stratified
    assert torch.equal(train.images, load_digits(is_training=True).images)
    assert train.images.max() == 255 and train.images.dtype == torch.uint8


def test_cifar10_and_fashion_mnist_are_read_from_their_files(write_idx_set, tmp_path):
    write_idx_set(tmp_path)
    sets = build_image_sets(DataConfig(dataset="fashion-mnist", data_path=str(tmp_path), image_size=28, preprocessing="none"), seed=0)
    image, label, _ = sets.training[(0, 3)]
    assert (len(sets.training), len(sets.validation), label) == (5, 2, 3)
    assert image[0, 0, 1] == (3 * 28 * 28 + 1) % 256
    assert torch.equal(image[0], image[2])  # grey in three channels


@pytest.mark.parametrize(
    ("shapes", "label", "message"),
    [
        (
            ((5, 28, 28), (4,), (2, 28, 28), (2,)),
            0,
            r"train-labels-idx1-ubyte.gz has dimensions \[4\], expected one label .* 5 images",
        ),
        (
            ((5, 28, 28), (5,), (2, 28, 28), (3,)),
            0,
            r"t10k-labels-idx1-ubyte.gz has dimensions \[3\], expected one label for each of the 2 images",
        ),
        (((5,), (5,), (2, 28, 28), (2,)), 0, r"train-images-idx3-ubyte.gz has dimensions \[5\], expected images, rows and columns"),
        (((5, 28, 0), (5,), (2, 28, 28), (2,)), 0, "expected images, rows and columns"),
        (((0, 28, 28), (0,), (2, 28, 28), (2,)), 0, "expected images, rows and columns"),
        (((5, 28, 28), (5, 1), (2, 28, 28), (2,)), 0, "expected one label"),
        (((5, 28, 28), (5,), (2, 28, 28), (2,)), 10, "has label 10, fashion-mnist has 10 classes"),
    ],
)
def test_idx_files_that_do_not_fit_together_are_named(write_idx_set, tmp_path, shapes, label, message):
    write_idx_set(tmp_path, shapes, label)
    with pytest.raises(DataError, match=message):
        build_image_sets(DataConfig(dataset="fashion-mnist", data_path=str(tmp_path), image_size=28, preprocessing="none"), seed=0)


def test_large_sizes_of_small_images_cost_memory_only_when_asked_for(write_idx_set, tmp_path):
    """5,000 images at 600 pixels would be 5.4 GB; as they are stored, 3.9 MB."""
    write_idx_set(tmp_path, ((5000, 28, 28), (5000,), (2, 28, 28), (2,)), label=0)
    for preprocessing in ("none", "standard"):
        config = DataConfig(dataset="fashion-mnist", data_path=str(tmp_path), image_size=600, preprocessing=preprocessing)
        image, label, failed = build_training_set(config, 0)[(0, 4999)]
        assert (image.shape, label, failed) == ((3, 600, 600), 0, -1)
        assert preprocessing == "standard" or image[0, 0, 0] == 4999 * 28 * 28 % 256


def test_generated_images_that_no_host_holds_are_said_before_they_are_made():
    config = DataConfig(dataset="generated", generated_images=10_000_000, image_size=8192, preprocessing="none")
    with pytest.raises(DataError, match="10000000 generated images of 8192 pixels need 1875000 GiB"):  # 1e7 * 3 * 2^26 / 2^30
        build_training_set(config, 0)


def test_generated_images_follow_the_seed():
    config = DataConfig(dataset="generated", generated_images=20, image_size=8, preprocessing="none")
    first, again, other = (build_image_sets(config, seed).training for seed in (1, 1, 2))
    assert torch.equal(first[(0, 5)][0], again[(0, 5)][0])
    assert not torch.equal(first[(0, 5)][0], other[(0, 5)][0])
