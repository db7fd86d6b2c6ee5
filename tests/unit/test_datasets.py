"""Data sets: what is read, how it is preprocessed, in what order, and what happens to damaged files."""

from __future__ import annotations

import gzip
import random
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

import poptorch
from config import ConfigError, DataConfig
from datasets.arrays import load_digits
from datasets.errors import DataError
from datasets.factory import build_image_sets, build_training_set, build_validation_set, training_facts
from datasets.pictures import Picture
from datasets.preprocessing import random_crop_box, resize_and_centre_crop, shift


def options(iterations=1, replicas=1, accumulation=1):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    return chosen


def folder_config(path, **values):
    return DataConfig(**{"dataset": "folder", "data_path": str(path), "image_size": 16, **values})


def test_digits_are_the_real_ones_with_a_fixed_stratified_split():
    train, validation = load_digits(is_training=True), load_digits(is_training=False)
    assert (len(train.labels), len(validation.labels)) == (1437, 360)
    assert torch.bincount(validation.labels).min() >= 34  # 360 / 10, stratified
    assert torch.equal(train.images, load_digits(is_training=True).images)
    assert train.images.max() == 255 and train.images.dtype == torch.uint8


# ---- facts without images, validation without training images


def test_facts_are_those_of_the_set_and_no_picture_is_opened(picture_folder, monkeypatch):
    configs = [folder_config(picture_folder), DataConfig(dataset="digits", preprocessing="none")]
    configs.append(DataConfig(dataset="generated", generated_images=23, preprocessing="none"))
    built = [build_training_set(config, seed=0) for config in configs]
    for part in ("load_digits", "generate_images", "read_idx"):
        monkeypatch.setattr(f"datasets.arrays.{part}", None)
    monkeypatch.setattr("PIL.Image.open", None)
    for config, images in zip(configs, built):
        facts = training_facts(config)
        assert (facts.num_images, facts.classes, facts.is_counted) == (len(images), tuple(images.classes), True)
        assert facts.num_classes == len(images.classes)


def test_facts_of_idx_files_come_from_the_header(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((7, 28, 28), np.uint8))
    facts = training_facts(DataConfig(dataset="fashion-mnist", data_path=str(tmp_path), preprocessing="none"))
    assert (facts.num_images, facts.num_classes, facts.classes[0], facts.is_counted) == (7, 10, "T-shirt/top", True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"dataset": "imagenet"}, (1_281_167, 1000)), ({"dataset": "cifar10", "preprocessing": "none"}, (50_000, 10))],
)
def test_facts_are_the_published_ones_where_the_data_is_not(values, expected):
    facts = training_facts(DataConfig(**values))
    assert (facts.num_images, facts.num_classes) == expected
    assert not facts.is_counted and not facts.classes


def test_validation_needs_no_training_folder_where_the_classes_are_known(picture_folder):
    (picture_folder / "train").rename(picture_folder / "elsewhere")
    config = folder_config(picture_folder)
    images = build_validation_set(config, 0, 24, classes=["bird", "dog", "cat"])
    assert [images[(0, index)][1] for index in range(4)] == [2, 2, 1, 1]  # by name: cat, cat, dog, dog
    assert images.classes == ["bird", "dog", "cat"]
    with pytest.raises(DataError, match=f"{picture_folder / 'val'} has 1 classes that training lacks: dog"):
        build_validation_set(config, 0, 24, classes=["bird", "cat"])
    with pytest.raises(DataError, match="train/CLASS/IMAGE"):
        build_validation_set(config, 0, 24)


def test_validation_labels_of_arrays_follow_the_classes():
    config = DataConfig(dataset="digits", preprocessing="none")
    plain, reversed_ = (build_validation_set(config, 0, 8, classes) for classes in (None, [str(digit) for digit in range(9, -1, -1)]))
    for index in range(20):
        assert plain[(0, index)][1] == 9 - reversed_[(0, index)][1]
    with pytest.raises(DataError, match="data set 'digits' has 8 classes that training lacks: 2, 3, 4, 5, 6"):
        build_validation_set(config, 0, 8, ["0", "1"])


def test_folder_finds_classes_and_preprocesses(picture_folder):
    sets = build_image_sets(folder_config(picture_folder), seed=0, validation_size=24)
    assert sets.training.classes == ["cat", "dog"]
    assert (len(sets.training), len(sets.validation), sets.num_classes) == (12, 4, 2)
    image, label, failed = sets.training[(0, 11)]
    assert image.shape == (3, 16, 16) and image.dtype == torch.uint8 and (label, failed) == (1, -1)
    assert sets.validation[(0, 0)][0].shape == (3, 24, 24)


def test_an_image_is_the_same_for_a_key_and_differs_between_epochs(picture_folder):
    training = build_image_sets(folder_config(picture_folder), seed=0).training
    assert torch.equal(training[(0, 3)][0], training[(0, 3)][0])
    assert not torch.equal(training[(0, 3)][0], training[(1, 3)][0])
    other_seed = build_image_sets(folder_config(picture_folder), seed=1).training
    assert not torch.equal(training[(0, 3)][0], other_seed[(0, 3)][0])


@pytest.mark.parametrize(
    ("values", "kind", "fragment"),
    [
        ({"dataset": "folder", "data_path": "/nowhere"}, DataError, "/nowhere/train/CLASS/IMAGE"),
        ({"dataset": "folder"}, DataError, "empty --data-path"),
        ({"dataset": "cifar10", "data_path": "/nowhere", "preprocessing": "none"}, DataError, "cifar-10-batches-py"),
        ({"dataset": "fashion-mnist", "data_path": "/nowhere", "preprocessing": "none"}, DataError, "train-images-idx3-ubyte"),
        ({"dataset": "digits"}, ConfigError, "'standard' crops photographs"),
        ({"dataset": "digits", "preprocessing": "none", "bounding_boxes": "x.csv"}, ConfigError, "bounding_boxes has no meaning"),
    ],
)
def test_missing_data_says_what_was_expected_where(values, kind, fragment):
    with pytest.raises(kind, match=fragment):
        build_image_sets(DataConfig(**values), seed=0)


def test_imagenet_has_a_thousand_classes(picture_folder):
    with pytest.raises(DataError, match="2 classes, ImageNet has 1000.*--dataset folder"):
        build_image_sets(folder_config(picture_folder, dataset="imagenet"), seed=0)


def test_a_validation_class_that_training_lacks_is_refused(picture_folder):
    (picture_folder / "val" / "fox").mkdir()
    with pytest.raises(DataError, match="classes that training lacks: fox"):
        build_image_sets(folder_config(picture_folder), seed=0)


def test_cifar10_and_fashion_mnist_are_read_from_their_files(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.arange(5 * 28 * 28, dtype=np.uint8).reshape(5, 28, 28))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(5, dtype=np.uint8))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((2, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(2, np.uint8))
    sets = build_image_sets(DataConfig(dataset="fashion-mnist", data_path=str(tmp_path), image_size=28, preprocessing="none"), seed=0)
    image, label, _ = sets.training[(0, 3)]
    assert (len(sets.training), len(sets.validation), label) == (5, 2, 3)
    assert image[0, 0, 1] == (3 * 28 * 28 + 1) % 256
    assert torch.equal(image[0], image[2])  # grey in three channels


def write_idx(path, values):
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_generated_images_follow_the_seed():
    config = DataConfig(dataset="generated", generated_images=20, image_size=8, preprocessing="none")
    first, again, other = (build_image_sets(config, seed).training for seed in (1, 1, 2))
    assert torch.equal(first[(0, 5)][0], again[(0, 5)][0])
    assert not torch.equal(first[(0, 5)][0], other[(0, 5)][0])


# ---- preprocessing


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 600), height=st.integers(1, 600), seed=st.integers(0, 10**6))
def test_crops_stay_inside_and_keep_their_area(width, height, seed):
    left, top, right, bottom = random_crop_box(width, height, [], random.Random(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_crops_cover_a_tenth_of_an_object():
    box = (0.9, 0.9, 1.0, 1.0)
    for seed in range(100):
        left, top, right, bottom = random_crop_box(200, 200, [box], random.Random(seed))
        overlap = max(0, min(right, 200) - max(left, 180)) * max(0, min(bottom, 200) - max(top, 180))
        assert overlap >= 0.1 * 20 * 20


def test_validation_crop_is_the_centre():
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 256 - 112 : 256 + 112] = 200  # the columns that a 224 crop of the centre keeps
    image = resize_and_centre_crop(Picture(Image.fromarray(pixels)), 224)
    assert image.shape == (3, 224, 224)
    assert image.min() == 200


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shift_moves_by_whole_pixels(seed):
    image = torch.arange(3 * 16 * 16, dtype=torch.uint8).view(3, 16, 16)
    moved = shift(image, random.Random(seed))
    assert moved.shape == image.shape
    centre = moved[0, 8, 8].item()
    assert centre in {image[0, 8 + down, 8 + right].item() for down in range(-2, 3) for right in range(-2, 3)}


def test_photographs_are_prepared_as_asked(picture_folder):
    """AutoAugment acts on the same crop as standard preprocessing; validation-style pixels are those of validation, in every epoch."""
    loaded = {}
    for name in ("standard", "autoaugment", "validation"):
        images = build_image_sets(folder_config(picture_folder, preprocessing=name, image_size=16), seed=3).training
        loaded[name] = [[images.load((epoch, index))[0] for index in range(len(images))] for epoch in range(2)]
    assert all(
        pixels.shape == (3, 16, 16) and pixels.dtype == torch.uint8 for epochs in loaded.values() for part in epochs for pixels in part
    )
    assert all(torch.equal(a, b) for a, b in zip(*loaded["validation"]))
    differing = [not torch.equal(a, b) for a, b in zip(sum(loaded["standard"], []), sum(loaded["autoaugment"], []))]
    assert 0.3 * len(differing) < sum(differing)  # some policies leave an image as it is


def test_auto_augment_depends_on_the_images_own_generator_alone():
    import random

    from datasets.preprocessing import auto_augment

    image = (torch.arange(3 * 24 * 24) % 251).to(torch.uint8).view(3, 24, 24)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    results = [auto_augment(image, random.Random(seed)) for seed in (*range(12), 3)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(result.shape == image.shape and result.dtype == torch.uint8 for result in results)
    assert torch.equal(results[3], results[-1])
    assert sum(not torch.equal(result, image) for result in results) > 6  # most policies change the image
