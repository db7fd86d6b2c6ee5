"""The cost model's formulas and schedules, on programs written by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st
from written_programs import convolution

from ipu_model.cost import assumptions
from ipu_model.cost.hardware import GC200, MACHINES
from ipu_model.cost.plan import plan
from ipu_model.cost.product import Product, forward_product, gradient_products
from ipu_model.cost.schedule import SCHEDULES, Slots, passes, timeline
from ipu_model.cost.settings import Settings, Target
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


HALF = Target(GC200, partials="half")


def planned(op, target=HALF):
    return plan(forward_product(op), target)


def test_the_cheapest_method_is_planned():
    """Depthwise: 8 products a cycle in SLIC beat 64 / 16 useful ones of a matrix unit filled with zeros, and those of the vector unit."""
    assert planned(convolution(32, 32, groups=32)).method == "SLIC"
    assert planned(convolution(64, 64, groups=4)).method == "AMP"
    strided = dataclasses.replace(convolution(32, 32, groups=32), stride=(2, 2))  # SLIC cannot go through gaps
    assert plan(gradient_products(strided)[0], HALF).method != "SLIC"


@pytest.mark.parametrize("partials", ["half", "float"])
def test_a_large_product_comes_near_the_peak_and_never_over_it(partials):
    """64 multiply-accumulates a cycle and tile in half with half partials, 32 with float partials; measured ones stop at two thirds."""
    product = Product("forward", 1, 16384, 1, 1024, 1024, 16384)
    peak = {"half": 64, "float": 32}[partials]
    rate = product.macs / 1472 / plan(product, Target(GC200, partials)).cycles
    assert 0.5 * peak < rate < 0.8 * peak


def test_a_group_of_16_fills_the_matrix_unit():
    """Groups of 8 leave half of the unit's outputs and inputs empty, and both take as long."""
    full, part = (planned(convolution(64, 64, groups=groups, batch=64)).compute_cycles for groups in (4, 8))
    assert part > 1.8 * full  # twice the groups, a quarter of the products each


def test_micro_batches_come_in_fours_in_weight_gradients():
    """What is summed over there is the micro batch, whose halves the unit takes by four: three images cost what four do."""

    def cycles(batch):
        return plan(gradient_products(convolution(16, 16, batch=batch))[1], HALF).compute_cycles

    assert cycles(3) == cycles(4) < cycles(5) == cycles(8)


SIZES = st.integers(1, 300)
PRODUCTS = st.builds(
    lambda groups, rows, reductions, inputs, outputs, is_half: Product(
        "forward", groups, rows, reductions, inputs, outputs, rows, is_half=is_half
    ),
    st.integers(1, 20), st.integers(1, 50_000), st.sampled_from([1, 9, 25]), SIZES, SIZES, st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(PRODUCTS, st.floats(0.001, 0.6), st.floats(1, 20))
def test_less_memory_for_temporaries_saves_memory(product, share, factor):
    """Cycles are tested on networks: for odd single products the fewest parts that fit are not always the fastest (0.79 x was seen)."""
    narrow, wide = plan(product, Target(GC200, "half", share)), plan(product, Target(GC200, "half", min(share * factor, 1.0)))
    limit = share * GC200.sram_bytes_per_tile
    assert narrow.temporary_bytes_per_tile <= max(limit, wide.temporary_bytes_per_tile)


@settings(max_examples=40, deadline=None)
@given(PRODUCTS)
def test_no_product_beats_the_matrix_unit(product):
    peak = 64 if product.is_half else 16
    assert plan(product, HALF).compute_cycles * peak * 1472 >= product.macs


CONVOLUTIONS = st.builds(
    lambda batch, width, groups, size, stride: Op(
        "conv", "convolution", "", 0, (Tensor((batch, width * groups, 24, 24), "float16"),),
        (Tensor((width * groups, width, size, size), "float16"),), Tensor((batch, width * groups, 24 // stride, 24 // stride), "float16"),
        groups, (size, size), (stride, stride), input_gradients=1, parameter_gradients=1,
    ),
    st.integers(1, 12), st.integers(1, 20), st.integers(1, 8), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]),
)  # fmt: skip


@given(CONVOLUTIONS)
def test_gradients_multiply_as_often_as_the_forward_pass(op):
    """Each pair of an input and a weight meets once in every pass; a strided gradient is the mean over its phases, to the next number."""
    data, weights = gradient_products(op)
    assert forward_product(op).macs == weights.macs == op.macs
    kernel, stride = op.kernel[0] ** 2, op.stride[0] ** 2
    assert data.macs == pytest.approx(op.macs, rel=0.0 if kernel % stride == 0 or kernel < stride else 0.15)


def test_gradients_of_matrix_products():
    """[4, 10] x [10, 7]: the left gradient sums over 7 columns, the right over 4 rows; of attention both are of data."""
    weights = Tensor((10, 7), "float16")
    linear = Op("matmul", "mm", "", 0, (Tensor((4, 10), "float16"),), (weights,), Tensor((4, 7), "float16"), input_gradients=1)
    (left,) = gradient_products(linear)
    assert (left.rows, left.inputs, left.outputs) == (4, 7, 10)
    (right,) = gradient_products(dataclasses.replace(linear, input_gradients=0, parameter_gradients=1))
    assert (right.rows, right.inputs, right.outputs) == (10, 4, 7)
    heads = (Tensor((6, 5, 3), "float16"), Tensor((6, 3, 8), "float16"))
    attention = Op("matmul", "bmm", "", 0, heads, (), Tensor((6, 5, 8), "float16"), input_gradients=2)
    assert attention.macs == 6 * 5 * 3 * 8 and [product.macs for product in gradient_products(attention)] == 2 * [attention.macs]


def test_backward_passes_follow_from_where_gradients_flow():
    op = convolution()
    both = backward_work(op, HALF)
    first = backward_work(dataclasses.replace(op, input_gradients=0), HALF)
    frozen = backward_work(dataclasses.replace(op, parameter_gradients=0), HALF)
    assert both.cycles == pytest.approx(first.cycles + frozen.cycles) and min(first.cycles, frozen.cycles) > 0
    assert backward_work(dataclasses.replace(op, input_gradients=0, parameter_gradients=0), HALF).cycles == 0


def test_elementwise_costs_are_the_inner_loops():
    """Swish in half: 5 worker cycles for 4 elements, 9 backward; a bare step on top."""
    tensor = Tensor((1472, 400), "float16")
    op = Op("elementwise", "silu", "", 0, (tensor,), (), tensor, input_gradients=1)
    factor, step = assumptions.ASSUMED_DATA_FACTOR, assumptions.ASSUMED_STEP_CYCLES
    assert forward_work(op, HALF).cycles == pytest.approx(factor * 400 * 5 / 4 + step)
    assert backward_work(op, HALF).cycles == pytest.approx(factor * 400 * 9 / 4 + step)


@given(st.lists(st.floats(0, 1e6), min_size=8, max_size=8), st.floats(0, 10))
def test_work_adds_and_scales(values, factor):
    work = Work(*values)
    assert (work + work).cycles == pytest.approx(2 * work.cycles)
    assert (work * factor).cycles == pytest.approx(factor * work.cycles)


# ---- settings


def test_each_ipu_has_its_own_proportion():
    settings_ = Settings(partials="half", memory_proportions=(0.1, 0.4), io_tiles=32)
    targets = [settings_.target(GC200, ipu) for ipu in range(3)]
    assert [target.memory_proportion for target in targets] == [0.1, 0.4, 0.6]  # PopLibs' default where nothing was said
    assert [target.temporary_limit_bytes_per_tile for target in targets] == pytest.approx([63_897.6, 255_590.4, 383_385.6])
    assert {(target.tiles, target.partials) for target in targets} == {(1440, "half")}


# ---- schedules

STAGES = st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100), st.integers(0, 3)), min_size=1, max_size=5)


def total(forward, backward, count, schedule, ipus=None):
    return timeline(forward, backward, ipus or range(len(forward)), count, schedule).total


def test_one_stage_has_no_bubble():
    for schedule in SCHEDULES:
        assert total([10], [20], 5, schedule) == 150
        assert timeline([10], [20], [0], 5, schedule).bubble_fraction == 0


def test_filling_runs_forward_and_draining_runs_backward():
    """4 equal stages, 8 micro batches: 8 slots in which some stage does both, 3 before with forward only, 3 behind with backward only."""
    times = timeline([1] * 4, [2] * 4, range(4), 8, "grouped")
    assert (times.total, times.ramp) == (8 * 3 + 3 * 1 + 3 * 2, 9)
    assert times.bubble_fraction == pytest.approx(9 / 33)


def test_a_slot_lasts_as_long_as_the_slowest_stage_that_has_work():
    """Stages A, B, C of 1, 10, 2 forward and 3, 20, 5 backward, and two micro batches: 2 + 2 (3 - 1) slots."""
    # grouped: A. A and B. B, and C both ways. C both ways, and B backward. B and A backward. A backward.
    assert total([1, 10, 2], [3, 20, 5], 2, "grouped") == 1 + 10 + 10 + 20 + 20 + 3
    assert total([1, 10, 2], [3, 20, 5], 2, "sequential") == 2 * 41
    # interleaved: A. B. A and C. B, and C backward. C, and B backward. A and C backward. B backward. A backward.
    assert total([1, 10, 2], [3, 20, 5], 2, "interleaved") == 1 + 10 + 2 + 10 + 20 + 5 + 20 + 3


def test_stages_that_share_an_ipu_run_one_after_another():
    """In a full pipeline a slot lasts as long as both of its stages, and no IPU waits but in the ramp."""
    apart, shared = (timeline([1, 2], [3, 4], ipus, 100, "grouped") for ipus in ([0, 1], [0, 0]))
    assert apart.total - timeline([1, 2], [3, 4], [0, 1], 99, "grouped").total == 6
    assert shared.total == pytest.approx(100 * 10) and shared.bubble_fraction == 0


def test_inference_has_forward_passes_only():
    for schedule in ("grouped", "interleaved"):
        assert total([1, 4, 2], [0, 0, 0], 3, schedule) == 1 + 4 + 4 + 4 + 2
    assert total([1, 4, 2], [0, 0, 0], 3, "sequential") == 21


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="unknown pipeline schedule 'grouping': expected one of grouped, interleaved, sequential"):
        timeline([1], [1], [0], 1, "grouping")


@pytest.mark.slow
@settings(deadline=None)
@given(STAGES, st.integers(1, 12), st.sampled_from(SCHEDULES))
def test_what_is_costed_is_what_is_drawn(stages, count, schedule):
    """Each pass once; an IPU runs one at a time; data come from the stage before, gradients from the one behind."""
    forward, backward, ipus = zip(*stages)
    drawn = passes(forward, backward, ipus, count, schedule)
    assert len(drawn) == len({(one.stage, one.micro_batch, one.is_forward) for one in drawn}) == 2 * len(stages) * count
    times = timeline(forward, backward, ipus, count, schedule)
    assert max(one.end for one in drawn) == pytest.approx(times.total)
    at = {(one.stage, one.micro_batch, one.is_forward): one for one in drawn}
    for ipu in set(ipus):
        own = sorted((one for one in drawn if ipus[one.stage] == ipu), key=lambda one: one.begin)
        assert all(a.end <= b.begin + 1e-9 for a, b in zip(own, own[1:]))
    for (stage, batch, is_forward), one in at.items():
        assert one.end - one.begin == pytest.approx((forward if is_forward else backward)[stage])
        needed = (stage - 1, batch, True) if is_forward else (stage + 1, batch, False)
        if not is_forward and stage == len(stages) - 1:
            needed = (stage, batch, True)
        if needed in at:
            assert one.begin >= at[needed].end - 1e-9
    assert times.total >= count * max(f + b for f, b in zip(forward, backward)) * (1 - 1e-9)
    assert times.total <= count * sum(forward + backward) * (1 + 1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(STAGES, st.integers(1, 40), st.sampled_from(SCHEDULES))
def test_micro_batches_that_wait_are_those_of_the_schedule(stages, count, schedule):
    """Counted over the passes: forward passes that ended before a backward pass begins and whose own has not begun, beside its own."""
    forward, backward, ipus = [1.0] * len(stages), [1.0] * len(stages), range(len(stages))
    drawn = passes(forward, backward, ipus, count, schedule)
    slots = Slots.of(schedule, len(stages), is_training=True)
    for stage in range(len(stages)):
        ahead = [one for one in drawn if one.stage == stage and one.is_forward]
        back = [one for one in drawn if one.stage == stage and not one.is_forward]
        most = max(sum(a.end <= b.begin and a.micro_batch > b.micro_batch for a in ahead) for b in back)
        assert slots.waiting(stage, count) == most
    assert total(forward, backward, count, schedule) == pytest.approx(max(one.end for one in drawn))
