"""Blocks on IPUs: numbers of IPUs and depth of pipelines."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ipu_model.program.placement import PlacedBlock, Placement, Stages


def place(*ipus):
    return Placement(tuple(PlacedBlock(str(index), ipu, ipu) for index, ipu in enumerate(ipus)))


def test_runs_of_equal_ipu_are_one_stage():
    assert place(0, 0, 1, 0).stage_ipus == (0, 1, 0)
    assert Placement().num_stages == 1


def stages(*blocks):
    """(stage of each block, IPU of each stage) of blocks given as (stage, IPU)."""
    found = Placement(tuple(PlacedBlock(str(index), stage, ipu) for index, (stage, ipu) in enumerate(blocks))).stages
    return found.of_block, found.ipus


def test_stages_are_in_the_order_in_which_they_run_wherever_they_are():
    assert stages((0, 1), (1, 0)) == ((0, 1), (1, 0))  # reversed IPUs
    assert stages((1, 1), (0, 0)) == ((0, 1), (1, 0))  # AutoStage.SameAsIpu numbers stages as IPUs
    assert stages((0, 0), (0, 0), (1, 0), (2, 1)) == ((0, 0, 1, 2), (0, 0, 1))  # two stages share an IPU
    assert stages((0, 0), (1, 1), (0, 0)) == ((0, 1, 2), (0, 1, 0))
    assert stages((3, 2), (7, 0)) == ((0, 1), (2, 0))
    assert stages() == ((0,), (0,))


def test_ipus_of_stages():
    shared = Stages((0, 1, 2), (1, 0, 1))
    assert (shared.number, shared.used_ipus, shared.on_ipu(1), shared.ipus_per_replica) == (3, (0, 1), (0, 2), 2)
    assert Stages((0, 0), (3,)).ipus_per_replica == 4  # ids count from 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_a_stage_has_one_ipu_and_follows_the_one_before(blocks):
    of_block, ipus = stages(*blocks)
    assert [ipus[stage] for stage in of_block] == [ipu for _, ipu in blocks]
    assert of_block[0] == 0 and all(later - before in (0, 1) for before, later in zip(of_block, of_block[1:]))


def test_an_unused_low_ipu_is_occupied():
    assert place(1, 3).ipus_per_replica == 4


def test_ipus_come_in_powers_of_two():
    assert place(0, 1).num_ipus(4, is_rounded=False) == 8
    with pytest.raises(ValueError, match="The model specifies the use of 6 IPUs"):
        place(0, 1).num_ipus(3, is_rounded=False)
    assert place(0, 1).num_ipus(3, is_rounded=True) == 8
    with pytest.raises(ValueError, match="Too many IPUs requested"):
        place(0, 1).num_ipus(33, is_rounded=True)


@pytest.mark.slow
@given(ipus=st.lists(st.integers(0, 3), min_size=1, max_size=8), replicas=st.integers(1, 16))
def test_granted_ipus_are_the_next_power_of_two(ipus, replicas):
    needed = (max(ipus) + 1) * replicas
    granted = place(*ipus).num_ipus(replicas, is_rounded=True) if needed <= 64 else 0
    assert granted == 0 or (granted & (granted - 1) == 0 and needed <= granted < 2 * needed)


def test_a_training_pipeline_of_n_stages_needs_2n_minus_1_micro_batches():
    pipeline = place(0, 1, 2)
    pipeline.check_pipeline_depth(5, 1, is_training=True)
    with pytest.raises(ValueError, match="gradientAccumulation must be greater than or equal to the number of pipeline stages .5.*it is 4"):
        pipeline.check_pipeline_depth(4, 1, is_training=True)


def test_an_inference_pipeline_needs_as_many_iterations_as_stages():
    place(0, 1, 2).check_pipeline_depth(1, 3, is_training=False)
    with pytest.raises(ValueError, match="deviceIterations must be greater than or equal to the number of pipeline stages .3.*it is 2"):
        place(0, 1, 2).check_pipeline_depth(1, 2, is_training=False)
    place(0, 0).check_pipeline_depth(1, 1, is_training=True)
