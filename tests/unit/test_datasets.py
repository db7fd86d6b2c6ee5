"""Data sets: what is read, how it is preprocessed, in what order, and what happens to damaged files."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

from config import ConfigError, DataConfig
from datasets.errors import DataError
from datasets.factory import build_image_sets, build_training_set, build_validation_set, chosen_dataset, training_facts


def folder_config(path, **values):
    return DataConfig(**{"dataset": "folder", "data_path": str(path), "image_size": 16, **values})


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


def test_facts_of_idx_files_come_from_the_header(write_idx_set, tmp_path):
    write_idx_set(tmp_path, ((7, 28, 28), (7,), (1, 28, 28), (1,)))
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


# ---- which data set a path means


def test_what_lies_under_the_path_is_taken(write_idx_set, tmp_path, picture_folder):
    (tmp_path / "idx").mkdir()
    write_idx_set(tmp_path / "idx", label=3)
    (tmp_path / "cifar" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "cifar" / "cifar-10-batches-py" / "data_batch_1").touch()
    kinds = {name: chosen_dataset(DataConfig(data_path=str(tmp_path / name))) for name in ("idx", "cifar", ".")}
    assert kinds == {"idx": "idx", "cifar": "cifar10", ".": "folder"}
    with pytest.raises(DataError, match="no data set: state --data-path with a folder of pictures, or a --dataset"):
        chosen_dataset(DataConfig())
    assert chosen_dataset(DataConfig(dataset="fashion-mnist", data_path=str(tmp_path / "idx"))) == "fashion-mnist"  # what is stated wins


def test_classes_of_idx_files_without_a_name_are_numbers(write_idx_set, tmp_path):
    write_idx_set(tmp_path, label=3)
    config = DataConfig(data_path=str(tmp_path), image_size=16)
    assert training_facts(config).classes == ("0", "1", "2", "3")
    sets = build_image_sets(config, seed=0)
    assert sets.training.classes == sets.validation.classes == ["0", "1", "2", "3"]
    assert sets.validation[(0, 1)][1] == 3 and sets.validation[(0, 1)][0].shape == (3, 16, 16)


@pytest.mark.parametrize("content", ["nothing at all", "data", "data/loose.png", "data/.git/config"])
def test_a_path_with_no_data_set_is_refused(tmp_path, content):
    (tmp_path / content).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / content).touch()
    with pytest.raises(DataError, match=f"no data set in {tmp_path / 'data'}: expected train/CLASS/IMAGE"):
        training_facts(DataConfig(data_path=str(tmp_path / "data")))


@pytest.mark.parametrize("dataset", ["digits", "generated", "synthetic"])
def test_a_path_that_nothing_uses_is_refused(dataset, picture_folder):
    with pytest.raises(ConfigError, match=f"data_path '{picture_folder}' is not used, data set '{dataset}' has no files: --config folder"):
        training_facts(DataConfig(dataset=dataset, data_path=str(picture_folder), preprocessing="none"))


@pytest.mark.parametrize("dataset", ["digits", "generated", "cifar10", "fashion-mnist", "idx"])
def test_a_share_of_what_has_a_split_of_its_own_is_refused(dataset):
    with pytest.raises(ConfigError, match="validation_share has no meaning"):
        training_facts(DataConfig(dataset=dataset, validation_share=0.2, preprocessing="none"))


# ---- a share held out of class folders


def flat(folder):
    """The training folder of `picture_folder` alone: 6 pictures of cat, 6 of dog."""
    return folder_config(folder / "train", validation_share=0.25, dataset=None)


def test_a_share_of_flat_class_folders_is_held_out(picture_folder):
    sets = build_image_sets(flat(picture_folder), seed=0)
    names = [[images.name(index) for index in range(len(images))] for images in (sets.training, sets.validation)]
    assert len(names[0]) + len(names[1]) == len({*names[0], *names[1]}) == 12
    assert all(any(f"/{kind}/" in name for name in part) for part in names for kind in ("cat", "dog"))
    assert training_facts(flat(picture_folder)).num_images == len(names[0])
    again = build_validation_set(flat(picture_folder), 5, 16, classes=["dog", "cat"])  # the same pictures for a checkpoint's classes
    assert [again.name(index) for index in range(len(again))] == names[1]


def test_train_alone_is_shared_too_and_two_answers_are_refused(picture_folder):
    config = folder_config(picture_folder, validation_share=0.25)
    with pytest.raises(DataError, match=f"{picture_folder / 'val'} has the validation pictures: leave validation_share out"):
        training_facts(config)
    shutil.rmtree(picture_folder / "val")
    assert 6 < training_facts(config).num_images < 12
    with pytest.raises(DataError, match="no validation pictures in .*--validation-share 0.2"):
        training_facts(folder_config(picture_folder))


def test_known_classes_validate_on_plain_class_folders(picture_folder):
    """A folder of pictures to test a checkpoint on, with neither train/ nor val/ in it: all of them count."""
    images = build_validation_set(folder_config(picture_folder / "val"), 0, 16, classes=["dog", "cat"])
    assert len(images) == 4 and images[(0, 0)][1] == 1


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    assert training_facts(folder_config(tmp_path, validation_share=0.3)).classes == ("plane", "train")


def test_an_empty_training_class_is_said(picture_folder, caplog):
    (picture_folder / "train" / "ant").mkdir()
    (picture_folder / "train" / "ant" / "notes.txt").touch()
    images = build_training_set(folder_config(picture_folder), seed=0)
    assert images.classes == ["ant", "cat", "dog"] and images[(0, 0)][1] == 1
    assert "no training pictures of 1 of 3 classes" in caplog.text and "ant" in caplog.text


def test_no_pictures_at_all_are_an_error(tmp_path):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
    with pytest.raises(DataError, match=f"no images in {tmp_path / 'train'}"):
        build_training_set(folder_config(tmp_path), seed=0)
    with pytest.raises(DataError, match=f"no images in {tmp_path / 'val'}"):
        build_validation_set(folder_config(tmp_path), 0, 16, ["a", "b"])


def test_bounding_boxes_reach_the_crops(picture_folder, tmp_path):
    """Every crop of a picture with one small box covers a tenth of it, so the pixels differ from those without."""
    path = tmp_path / "boxes.csv"
    names = [f"{kind}/{index}.{'png' if index % 2 else 'jpg'}" for kind in ("cat", "dog") for index in range(6)]
    path.write_text("".join(f"{name},0.9,0.9,1,1\n" for name in names))
    plain, boxed = (build_training_set(folder_config(picture_folder, bounding_boxes=boxes), 0) for boxes in (None, str(path)))
    assert sum(not torch.equal(plain[(0, index)][0], boxed[(0, index)][0]) for index in range(12)) >= 6
