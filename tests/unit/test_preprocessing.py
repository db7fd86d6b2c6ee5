"""From a picture to training and validation pixels."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from config import DataConfig
from datasets.factory import build_image_sets
from datasets.pictures import Picture
from datasets.preprocessing import auto_augment, random_crop_box, resize_and_centre_crop, shift


def folder_config(path, **values):
    return DataConfig(**{"dataset": "folder", "data_path": str(path), "image_size": 16, **values})


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
    image = (torch.arange(3 * 24 * 24) % 251).to(torch.uint8).view(3, 24, 24)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    results = [auto_augment(image, random.Random(seed)) for seed in (*range(12), 3)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(result.shape == image.shape and result.dtype == torch.uint8 for result in results)
    assert torch.equal(results[3], results[-1])
    assert sum(not torch.equal(result, image) for result in results) > 6  # most policies change the image
