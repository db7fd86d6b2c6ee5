"""The cost model's formulas, schedules, memory and splits, on programs written by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings, strategies as st

from ipu_model.cost import assumptions
from ipu_model.cost.estimate import estimate_program
from ipu_model.cost.hardware import BOW, GC200, MACHINES
from ipu_model.cost.insights import insights
from ipu_model.cost.memory import stored_bytes
from ipu_model.cost.page import comparison_page, report_page
from ipu_model.cost.plan import busiest_share, plan
from ipu_model.cost.schedule import spans, timeline
from ipu_model.cost.settings import Settings
from ipu_model.cost.splits import best_cuts, largest_micro_batch, with_micro_batch, with_splits, with_units
from ipu_model.cost.tables import table, text_report
from ipu_model.cost.work import Work, backward_work, forward_work
from ipu_model.program.ops import Op, Program, Tensor, Variable

POD16 = MACHINES["pod16"]


def convolution(channels_in=16, channels_out=16, batch=8, groups=1, kernel=3, number=0):
    """In half, on images of 32 x 32."""
    return Op(
        kind="conv",
        name="convolution",
        path=f"net.{number}",
        block=0,
        inputs=(Tensor((batch, channels_in, 32, 32), "float16"),),
        parameters=(Tensor((channels_out, channels_in // groups, kernel, kernel), "float16"),),
        output=Tensor((batch, channels_out, 32, 32), "float16"),
        groups=groups,
        kernel=(kernel, kernel),
        stride=(1, 1),
        input_gradients=1,
        parameter_gradients=1,
        reads=(number,),
        writes=number + 1,
    )


def chain(length=8, batch=8, is_training=True, widths=None):
    """Convolutions in a row, each a module of its own."""
    ops, variables = [], []
    for index in range(length):
        width = widths[index] if widths else 16
        op = convolution(16, 16, batch=batch, kernel=width, number=index)
        ops.append(op)
        variables.append(Variable(f"net.{index}.weight", op.parameters[0], 0, is_training))
    return Program(tuple(ops), tuple(variables), ops[0].inputs, (ops[-1].output,), is_training)


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


# ---- memory


def test_the_backward_pass_stores_each_tensor_once():
    op = convolution()
    twice = (op, dataclasses.replace(op, writes=9))
    assert stored_bytes(twice) == [op.inputs[0].bytes]


def test_always_live_memory():
    """16 x 16 x 3 x 3 half weights on each of 8 layers, and float32 momentum for each of their elements."""
    program = dataclasses.replace(chain(), ops=chain().ops[:1])
    memory = estimate_program(program, Settings(gradient_accumulation=2, optimizer_states=2), POD16).stages[0].memory
    elements = sum(variable.tensor.elements for variable in program.variables)
    assert memory.weights == pytest.approx(2 * elements / 1472)
    assert memory.optimizer_state == pytest.approx(8 * elements / 1472)
    assert memory.accumulators == pytest.approx(4 * elements / 1472)
    shared = Settings(replication_factor=4, optimizer_states=2, is_optimizer_sharded=True)
    assert estimate_program(program, shared, POD16).stages[0].memory.optimizer_state == pytest.approx(2 * elements / 1472)
    away = Settings(optimizer_states=2, is_optimizer_off_chip=True)
    assert estimate_program(program, away, POD16).stages[0].memory.optimizer_state == 0


def test_recomputation_trades_cycles_for_memory():
    plain = estimate_program(chain(24), Settings(), POD16).stages[0]
    recomputed = estimate_program(chain(24), Settings(is_recomputed=True), POD16).stages[0]
    assert recomputed.memory.activations < plain.memory.activations
    assert recomputed.cycles == pytest.approx(plain.cycles + plain.forward.cycles)


def test_liveness_ends_at_the_worst_point_and_comes_back():
    for settings_ in (Settings(8), Settings(8, is_recomputed=True)):
        stage = estimate_program(chain(12), settings_, POD16).stages[0]
        always = stage.memory.total - stage.memory.activations - stage.memory.temporaries
        assert stage.liveness[-1] == pytest.approx(always)
        assert max(stage.liveness) == pytest.approx(always + stage.memory.activations)


def test_earlier_stages_hold_more_micro_batches():
    program = with_splits(with_units(chain(), [f"net.{index}" for index in range(8)]), (3, 5, 7))
    stashes = [stage.memory.stashes for stage in estimate_program(program, Settings(8, is_recomputed=True), POD16).stages]
    one = convolution().output.bytes / 1472
    assert stashes == pytest.approx([6 * one, 4 * one, 2 * one, 0])


# ---- whole programs


def test_throughput_scales_with_the_clock_and_the_replicas():
    one = estimate_program(chain(), Settings(16), POD16)
    four = estimate_program(chain(), Settings(16, 4), POD16)
    assert four.images_per_second == pytest.approx(4 * one.images_per_second, rel=0.05)  # the reduction over replicas costs something
    inside = Settings(16, io_tiles=32)  # without the host, whose links are as fast on both
    slow, fast = (estimate_program(chain(), inside, MACHINES[name]).images_per_second for name in ("pod16", "bow-pod16"))
    assert fast / slow == pytest.approx(BOW.clock_hz / GC200.clock_hz, rel=0.01)


def test_json_has_what_programs_read():
    values = json.loads(json.dumps(estimate_program(chain(), Settings(4), POD16).as_json()))
    assert {"images_per_second", "step_cycles", "bubble_fraction", "fits", "ipus"} <= set(values)
    assert set(values["ipus"][0]) == {"cycles", "peak_bytes_per_tile", "limit_bytes_per_tile"}
    assert values["ipus"][0]["limit_bytes_per_tile"] == 624 * 1024


def test_what_does_not_fit_says_so_and_what_would_help():
    program = with_micro_batch(chain(40), 4096)
    estimate = estimate_program(program, Settings(4), POD16)
    text = " ".join(insights(program, estimate))
    assert not estimate.fits and "IPU 0 does not fit" in text and "a micro batch of" in text
    largest = largest_micro_batch(program, Settings(4), POD16)
    assert estimate_program(with_micro_batch(program, largest), Settings(4), POD16).fits
    assert not estimate_program(with_micro_batch(program, largest + 1), Settings(4), POD16).fits


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=3, max_size=7), st.integers(2, 3))
def test_splits_are_the_best_of_all(widths, stages):
    """Against every way to cut a small model."""
    import itertools

    program = with_units(chain(len(widths), widths=widths), [f"net.{index}" for index in range(len(widths))])
    cuts = best_cuts(program, stages, Settings(8), POD16)

    def slowest(choice):
        result = estimate_program(with_splits(program, choice), Settings(8), POD16)
        return max(stage.forward.cycles + stage.backward.cycles + (stage.transfer_cycles if stage.stage else 0) for stage in result.stages)

    every = itertools.combinations(range(1, len(widths) + 1), stages - 1)
    assert slowest(cuts) == pytest.approx(min(slowest(choice) for choice in every))


def test_no_splits_where_nothing_fits():
    program = with_units(with_micro_batch(chain(6), 100_000), [f"net.{index}" for index in range(6)])
    assert best_cuts(program, 2, Settings(4), POD16) is None


# ---- reports


def test_reports_list_every_assumption():
    program = chain()
    estimate = estimate_program(program, Settings(8), POD16)
    text, page = text_report("chain", program, estimate), report_page("a <b>", program, estimate)
    for name, (_, is_fitted) in assumptions.listed().items():
        assert name in text and name in page
        assert isinstance(is_fitted, bool)
    assert sum(fitted for _, fitted in assumptions.listed().values()) <= 6
    assert "a &lt;b&gt;" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    order = [page.index(f'id="{name}"') for name in ("summary", "insights", "memory", "liveness", "operations", "execution-trace")]
    assert order == sorted(order)
    assert "chain" in comparison_page(["chain"], [estimate])


def test_tables_align():
    assert table([["a", "1", "2"], ["bbb", "10", "3"]]) == "  a     1  2\n  bbb  10  3"
