"""Random numbers of the host: one stream for each image in each epoch, order, and part of the generated images."""

from __future__ import annotations

from hypothesis import example, given, settings, strategies as st

from datasets.randomness import order_seed, part_seed, sample_generator

IMAGENET_IMAGES = 1_281_167
KEYS = st.tuples(st.integers(0, 2**70), st.integers(0, 2**20), st.integers(0, 2**40))  # seed, epoch, index


def draw(key):
    return sample_generator(*key).getrandbits(64)


@settings(max_examples=200, deadline=None)
@given(first=KEYS, other=KEYS)
@example(first=(0, 0, 1_000_003), other=(0, 1, 0))  # what a product with a prime below ImageNet's images makes equal
@example(first=(0, 1_000_003, 0), other=(1, 0, 0))
@example(first=(2**48, 0, 5), other=(0, 0, 5))  # what keeping 48 bits makes equal
def test_numbers_of_an_image_are_its_own(first, other):
    assert (draw(first) == draw(other)) == (first == other)  # 64 bits: by chance with probability 2^-64


def test_no_two_images_of_imagenet_share_numbers_within_the_epochs_of_a_run():
    """Around each multiple of a thousand images, in ten epochs: any multiplier up to ImageNet's size would collide somewhere here."""
    indices = [base + offset for base in range(0, IMAGENET_IMAGES, 50_000) for offset in range(10)]
    indices += [1_000_003 + offset for offset in range(10)]
    drawn = [draw((7, epoch, index)) for epoch in range(10) for index in sorted(set(indices))]
    assert len(set(drawn)) == len(drawn)


@settings(max_examples=100, deadline=None)
@given(first=st.tuples(st.integers(0, 2**70), st.integers(0, 2**30)), other=st.tuples(st.integers(0, 2**70), st.integers(0, 2**30)))
@example(first=(0, 1_000_003), other=(1, 0))
@example(first=(2**63, 0), other=(0, 0))
def test_an_order_is_of_its_seed_and_epoch_alone(first, other):
    assert (order_seed(*first) == order_seed(*other)) == (first == other)


def test_validation_images_of_one_seed_are_not_the_training_images_of_the_next():
    seeds = [part_seed(seed, part) for seed in range(50) for part in ("training", "validation")]
    assert len(set(seeds)) == len(seeds)
