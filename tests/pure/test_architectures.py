"""The table of stages and compound scaling."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from models.architectures import SIZES, STAGES, block_paths, num_groups, scale_channels, scale_repeats


@given(channels=st.integers(8, 4096), width=st.floats(0.25, 4))
def test_scaled_channels_are_multiples_of_8_near_the_product(channels, width):
    scaled = scale_channels(channels, width)
    assert scaled % 8 == 0
    assert scaled >= 0.9 * channels * width or scaled == 8
    assert scaled <= channels * width + 8


@given(channels=st.integers(1, 512).map(lambda n: 8 * n), group_size=st.integers(1, 64))
def test_groups_divide_channels_or_raise(channels, group_size):
    if channels % group_size == 0:
        assert num_groups(channels, group_size) * group_size == channels
    else:
        with pytest.raises(ValueError, match=f"group_size {group_size} does not divide"):
            num_groups(channels, group_size)


def test_the_first_stage_may_have_wider_groups():
    assert num_groups(40, 16, is_first_stage=True) == 2  # B3: two groups of 20
    assert num_groups(24, 16, is_first_stage=True) == 1
    with pytest.raises(ValueError, match="does not divide the 40 channels"):
        num_groups(40, 16)


def test_block_paths_follow_the_repeats():
    paths = block_paths(SIZES["efficientnet-b0"])
    assert len(paths) == sum(stage.repeats for stage in STAGES)
    assert paths[:4] == ["blocks.0.0", "blocks.1.0", "blocks.1.1", "blocks.2.0"]
    assert scale_repeats(3, 1.1) == 4  # rounded up
