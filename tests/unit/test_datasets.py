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
from datasets.arrays import load_digits, read_idx
from datasets.errors import DataError
from datasets.factory import build_image_sets
from datasets.folders import class_folders, read_bounding_boxes
from datasets.loader import build_training_loader, build_validation_loader
from datasets.order import Share, TrainingOrder, ValidationOrder
from datasets.preprocessing import random_crop_box, resize_and_centre_crop, shift


def options(iterations=1, replicas=1, accumulation=1):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    return chosen


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


def folder_config(path, **values):
    return DataConfig(**{"dataset": "folder", "data_path": str(path), "image_size": 16, **values})


def test_digits_are_the_real_ones_with_a_fixed_stratified_split():
    train, validation = load_digits()
    assert (len(train.labels), len(validation.labels)) == (1437, 360)
    assert torch.bincount(validation.labels).min() >= 34  # 360 / 10, stratified
    again, _ = load_digits()
    assert torch.equal(train.images, again.images)
    assert train.images.max() == 255 and train.images.dtype == torch.uint8


def test_folder_finds_classes_and_preprocesses(picture_folder):
    sets = build_image_sets(folder_config(picture_folder, validation_image_size=24), seed=0)
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
        class_folders(str(picture_folder))


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


def test_a_cut_idx_file_is_refused(tmp_path):
    write_idx(tmp_path / "x.gz", np.zeros((4, 4), np.uint8))
    whole = gzip.decompress((tmp_path / "x.gz").read_bytes())
    (tmp_path / "x.gz").write_bytes(gzip.compress(whole[:-3]))
    with pytest.raises(DataError, match="cut short"):
        read_idx(str(tmp_path), "x")


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
    image = resize_and_centre_crop(Image.fromarray(pixels), 224)
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


def test_bounding_boxes_are_read_and_bad_lines_named(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("file,xmin,ymin,xmax,ymax\na.JPEG,0.1,0.2,0.5,0.6\na.JPEG,0,0,1,1\n")
    assert read_bounding_boxes(str(path)) == {"a.JPEG": [(0.1, 0.2, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0)]}
    path.write_text("a.JPEG,0.1,0.2,0.5,0.6\nb.JPEG,0.1,0.2\n")
    with pytest.raises(DataError, match="line 2"):
        read_bounding_boxes(str(path))
    with pytest.raises(DataError, match="cannot be read"):
        read_bounding_boxes(str(tmp_path / "none.csv"))


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


# ---- order and loaders


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 60), micro=st.integers(1, 5), per_call=st.integers(1, 5), epoch=st.integers(0, 3), seed=st.integers(0, 99))
def test_training_order_visits_each_image_at_most_once_and_can_start_anywhere(images, micro, per_call, epoch, seed):
    order = TrainingOrder(images, micro, per_call, seed)
    order.epoch = epoch
    whole = list(order)
    keys = [key for batch in whole for key in batch]
    assert len(keys) == len(set(keys)) == images // (micro * per_call) * micro * per_call
    for call in range(order.calls_per_epoch + 1):
        order.first_call = call
        assert list(order) == whole[call * per_call :]
        assert len(order) == len(whole) - call * per_call


def test_training_order_changes_with_epoch_and_seed():
    orders = [TrainingOrder(50, 5, 2, seed) for seed in (0, 0, 1)]
    orders[1].epoch = 1
    assert len({str(list(order)) for order in orders}) == 3


@settings(max_examples=30, deadline=None)
@given(images=st.integers(1, 60), micro=st.integers(1, 7), per_call=st.integers(1, 5))
def test_validation_order_visits_every_image_in_order(images, micro, per_call):
    indices = [index for batch in ValidationOrder(images, micro, per_call) for _, index in batch]
    assert indices[:images] == list(range(images))
    assert len(indices) % (micro * per_call) == 0
    assert set(indices[images:]) <= {images - 1}


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 90), micro=st.integers(1, 4), steps=st.integers(1, 3), local=st.integers(1, 3), processes=st.integers(1, 4),
)  # fmt: skip
def test_processes_share_the_images_without_overlap_or_loss(images, micro, steps, local, processes):
    total = local * processes
    shares = [Share(process * local, local, total) for process in range(processes)]
    for build in (
        lambda *share: TrainingOrder(images, micro, steps * total, 7, *share),
        lambda *share: ValidationOrder(images, micro, steps * total, *share),
    ):
        whole, parts = list(build()), [list(build(share)) for share in shares]
        assert [len(list(part)) for part in parts] == [len(build(share)) for share in shares]
        joined = [batch for row in zip(*[iter(part) for part in parts]) for batch in row] if local == 1 else None
        assert joined is None or joined == whole  # replicas take turns
        assert sorted(batch for part in parts for batch in part) == sorted(whole)
    seen = [position for share in shares for position in share.positions(0, len(parts[0]) * micro, micro).tolist()]
    assert sorted(seen) == list(range(len(whole) * micro))


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_combined_batches(picture_folder, workers):
    sets = build_image_sets(folder_config(picture_folder), seed=0)
    loader, order = build_training_loader(sets.training, options(1, 2, 2), 2, seed=0, num_workers=workers)
    assert (len(loader), order.calls_per_epoch) == (1, 1)
    batches = list(loader)
    assert [pixels.shape for pixels, _, _ in batches] == [(8, 3, 16, 16)]
    assert batches[0][1].dtype == torch.int32
    again = list(loader)
    assert torch.equal(batches[0][0], again[0][0])  # the epoch has not moved on
    validation = list(build_validation_loader(sets.validation, options(3), 1, num_workers=workers))
    assert torch.cat([is_real for _, _, is_real in validation]).tolist() == [True] * 4 + [False] * 2


def test_too_few_images_for_a_call_is_an_error(picture_folder):
    sets = build_image_sets(folder_config(picture_folder), seed=0)
    with pytest.raises(DataError, match="12 images, one call consumes 16"):
        build_training_loader(sets.training, options(1, 2, 2), 4, seed=0, num_workers=0)


def damaged_folder(root, count):
    """`count` good pictures in two classes, one truncated and one that is text."""
    for part in ("train", "val"):
        for name in ("a", "b"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count // 2):
                Image.new("RGB", (8, 8), (index % 256, 0, 0)).save(folder / f"{index:05d}.png")
    return root


def test_a_damaged_file_is_skipped_counted_and_named(tmp_path, caplog):
    root = damaged_folder(tmp_path, 2000)
    broken = root / "val" / "a" / "00003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    sets = build_image_sets(folder_config(root, image_size=8), seed=0)
    loader = build_validation_loader(sets.validation, options(), 100, num_workers=0)
    real = sum(int(is_real.sum()) for _, _, is_real in loader)
    assert real == 1999
    assert loader.unreadable == {3}
    assert str(broken) in caplog.text


def test_too_many_damaged_files_stop_the_run(tmp_path):
    root = damaged_folder(tmp_path, 40)
    (root / "train" / "b" / "00001.png").write_text("not a picture")
    sets = build_image_sets(folder_config(root, image_size=8), seed=0)
    loader, _ = build_training_loader(sets.training, options(), 40, seed=0, num_workers=0)
    with pytest.raises(DataError, match="1 of 40 images cannot be read, more than 0.1%.*00001.png"):
        list(loader)
