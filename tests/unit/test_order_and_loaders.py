"""In which order images are fed, which process gets which, and the loaders over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

import poptorch
from config import DataConfig
from datasets.errors import DataError
from datasets.factory import build_image_sets
from datasets.images import ImageSet
from datasets.loader import build_training_loader, build_validation_loader
from datasets.order import Share, TrainingOrder, ValidationOrder


def folder_config(path, **values):
    return DataConfig(**{"dataset": "folder", "data_path": str(path), "image_size": 16, **values})


def options(iterations=1, replicas=1, accumulation=1):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    return chosen


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
    for index in range(11):
        (root / "train" / "b" / f"{index:05d}.png").write_text("not a picture")
    sets = build_image_sets(folder_config(root, image_size=8), seed=0)
    loader, _ = build_training_loader(sets.training, options(), 40, seed=0, num_workers=0)
    with pytest.raises(DataError, match="11 of 40 images cannot be read, more than 10: .*00000.png, .*00001.png, .*00002.png. Remove"):
        list(loader)


@pytest.mark.parametrize(("images", "expected"), [(1, 10), (10_999, 10), (11_000, 11), (1_281_167, 1281)])
def test_as_many_files_may_be_damaged_as_the_larger_of_ten_and_a_thousandth(images, expected):
    class Counted(ImageSet):
        def __len__(self):
            return images

        def load(self, key):
            raise AssertionError

        name = load

    assert Counted(["a", "b"], 8).max_unreadable == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_damaged_files_alone_is_an_error_in_one_line(tmp_path, workers):
    root = damaged_folder(tmp_path, 4)
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"")
    sets = build_image_sets(folder_config(root, image_size=8), seed=0)
    with pytest.raises(DataError) as caught:
        list(build_validation_loader(sets.validation, options(), 2, num_workers=workers))
    assert "00000.png and the 3 images after it cannot be read" in str(caught.value) and "\n" not in str(caught.value)


def test_what_vanishes_while_it_is_read_is_named(tmp_path, caplog):
    root = damaged_folder(tmp_path, 40)
    sets = build_image_sets(folder_config(root, image_size=8), seed=0)
    (root / "val" / "b" / "00007.png").unlink()
    real = [is_real for _, _, is_real in build_validation_loader(sets.validation, options(), 10, num_workers=0)]
    assert int(torch.cat(real).sum()) == 39
    assert "b/00007.png: [Errno 2] No such file or directory" in caplog.text
