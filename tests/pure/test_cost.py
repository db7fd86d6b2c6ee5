"""The cost model's formulas and schedules, on programs written by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st
from written_programs import convolution

from ipu_model.cost import assumptions
from ipu_model.cost.hardware import GC200, MACHINES
from ipu_model.cost.plan import busiest_share, plan
from ipu_model.cost.schedule import spans, timeline
from ipu_model.cost.settings import Settings
from ipu_model.cost.work import Work, backward_work, forward_work
from ipu_model.program.ops import Op, Tensor

POD16 = MACHINES["pod16"]


# ---- operations


def test_multiply_accumulates_of_convolutions():
    """Output elements x channels of a group x kernel size: 8 x 16 x 32 x 32 x (16 x 9)."""
    assert convolution().macs == 8 * 16 * 32 * 32 * 16 * 9
    assert convolution(groups=16).macs == 8 * 16 * 32 * 32 * 9
    weights = (Tensor((7,), "float32"), Tensor((10, 7), "float32"))
    linear = Op("matmul", "addmm", "", 0, (Tensor((4, 10), "float32"),), weights, Tensor((4, 7), "float32"))
    assert linear.macs == 4 * 10 * 7 and linear.flops == 2 * linear.macs


HALF = Settings(partials="half")


def test_the_cheapest_method_is_planned():
    """Depthwise: 8 products a cycle in SLIC beat 64 / 256 useful ones of a matrix unit filled with zeros, and 4 of the vector unit."""
    assert plan(convolution(groups=16), HALF, GC200).method == "SLIC"
    assert plan(convolution(64, 64, groups=4), HALF, GC200).method == "AMP"


def test_little_memory_cuts_an_operation_into_parts():
    op = convolution(256, 256, batch=64)
    wide, narrow = (plan(op, Settings(partials="half", available_memory_proportion=share), GC200) for share in (0.6, 0.02))
    assert wide.parts == 1 and narrow.parts > 1
    assert narrow.temporary_bytes <= 0.02 * GC200.sram_bytes_per_tile * GC200.tiles
    assert (
        forward_work(op, Settings(partials="half", available_memory_proportion=0.02), GC200).cycles > forward_work(op, HALF, GC200).cycles
    )


def test_a_group_of_16_fills_the_matrix_unit():
    """64 multiply-accumulates a cycle and tile in half with half partials; 32 with float partials; 8 in SLIC, a 3-wide row padded to 4.

    8 x 32 x 32 positions x 4 blocks of channels: 23 pairs on the busiest of 1,472 tiles.
    """
    assert busiest_share(8192, 4, 1472) == 23
    op = convolution(64, 64, groups=4)
    busiest = 23 / (8192 * 4) * op.macs
    assert forward_work(op, HALF, GC200).matrix == pytest.approx(busiest / 64)
    assert forward_work(op, Settings(partials="float"), GC200).matrix == pytest.approx(busiest / 32)
    depthwise = convolution(groups=16)
    assert forward_work(depthwise, HALF, GC200).matrix == pytest.approx(23 / (8192 * 4) * depthwise.macs / 8 * 4 / 3)
    image = convolution(3, 16)  # 3 channels x 3 rows fill 9 of 16; 8192 positions x 1 block: 6 on the busiest tile
    assert forward_work(image, HALF, GC200).matrix == pytest.approx(6 / 8192 * image.macs / 64 * 16 / 9)


@given(st.integers(1, 5000), st.integers(1, 200))
def test_the_busiest_tile_has_at_least_its_share(positions, blocks):
    share = busiest_share(positions, blocks, 1472)
    assert share >= positions * blocks / 1472 and share <= -(-positions // 1472) * blocks


def test_backward_passes_follow_from_where_gradients_flow():
    op = convolution()
    once = forward_work(op, HALF, GC200)
    assert backward_work(op, HALF, GC200).cycles == pytest.approx(2 * once.cycles)
    first = dataclasses.replace(op, input_gradients=0)
    assert backward_work(first, HALF, GC200).cycles == pytest.approx(once.cycles)
    constant = dataclasses.replace(op, input_gradients=0, parameter_gradients=0)
    assert backward_work(constant, HALF, GC200).cycles == 0


def test_elementwise_costs_are_the_inner_loops():
    """Swish in half: 5 worker cycles for 4 elements, 9 backward; a bare step on top."""
    tensor = Tensor((1472, 400), "float16")
    op = Op("elementwise", "silu", "", 0, (tensor,), (), tensor, input_gradients=1)
    factor, step = assumptions.ASSUMED_DATA_FACTOR, assumptions.ASSUMED_STEP_CYCLES
    assert forward_work(op, HALF, GC200).cycles == pytest.approx(factor * 400 * 5 / 4 + step)
    assert backward_work(op, HALF, GC200).cycles == pytest.approx(factor * 400 * 9 / 4 + step)


@given(st.lists(st.floats(0, 1e6), min_size=8, max_size=8), st.floats(0, 10))
def test_work_adds_and_scales(values, factor):
    work = Work(*values)
    assert (work + work).cycles == pytest.approx(2 * work.cycles)
    assert (work * factor).cycles == pytest.approx(factor * work.cycles)


# ---- schedules

CYCLES = st.lists(st.floats(1, 100), min_size=1, max_size=6)


def test_one_stage_has_no_bubble():
    assert timeline([10], [20], 5, "grouped").total == 150
    assert timeline([10], [20], 5, "grouped").bubble_fraction == 0


def test_filling_runs_forward_and_draining_runs_backward():
    """4 equal stages, 8 micro batches: 8 whole cycles, 3 forward passes to fill, 3 backward passes to drain."""
    times = timeline([1] * 4, [2] * 4, 8, "grouped")
    assert (times.steady, times.ramp) == (24, 9)
    assert times.bubble_fraction == pytest.approx(9 / 33)


@settings(deadline=None)
@given(forward=CYCLES, micro_batches=st.integers(1, 12))
def test_orders_of_schedules(forward, micro_batches):
    """No schedule beats the slowest stage's own work, and none is slower than one stage after another."""
    backward = [2 * cycles for cycles in forward]
    sequential = timeline(forward, backward, micro_batches, "sequential").total
    pipelined = timeline(forward, backward, micro_batches, "grouped").total
    assert pipelined >= micro_batches * max(f + b for f, b in zip(forward, backward)) * (1 - 1e-9)
    assert sequential >= micro_batches * max(f + b for f, b in zip(forward, backward)) * (1 - 1e-9)


@settings(deadline=None)
@given(forward=CYCLES, micro_batches=st.integers(1, 8))
def test_drawn_passes_are_possible(forward, micro_batches):
    """Each pass once; a stage runs one at a time, forward after the stage before, backward after the stage behind."""
    backward = [2 * cycles for cycles in forward]
    drawn = spans(forward, backward, micro_batches)
    assert len(drawn) == 2 * len(forward) * micro_batches
    at = {(span.stage, span.micro_batch, span.is_forward): span for span in drawn}
    for stage in range(len(forward)):
        own = sorted((span for span in drawn if span.stage == stage), key=lambda span: span.begin)
        assert all(a.end <= b.begin + 1e-9 for a, b in zip(own, own[1:]))
        for batch in range(micro_batches):
            if stage:
                assert at[stage, batch, True].begin >= at[stage - 1, batch, True].end - 1e-9
                assert at[stage - 1, batch, False].begin >= at[stage, batch, False].end - 1e-9
    bound = micro_batches * max(f + b for f, b in zip(forward, backward))
    assert max(span.end for span in drawn) >= bound - 1e-6
