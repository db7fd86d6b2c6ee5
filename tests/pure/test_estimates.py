"""The cost model's memory, throughput, splits and reports, on programs written by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings, strategies as st
from written_programs import chain, convolution

from ipu_model.cost import assumptions
from ipu_model.cost.estimate import estimate_program
from ipu_model.cost.hardware import BOW, GC200, MACHINES
from ipu_model.cost.insights import insights
from ipu_model.cost.memory import stored_bytes
from ipu_model.cost.page import comparison_page, report_page
from ipu_model.cost.settings import Settings
from ipu_model.cost.splits import best_cuts, largest_micro_batch, with_micro_batch, with_splits, with_units
from ipu_model.cost.tables import table, text_report

POD16 = MACHINES["pod16"]


# ---- memory


def test_the_backward_pass_stores_each_tensor_once():
    op = convolution()
    twice = (op, dataclasses.replace(op, writes=9))
    assert stored_bytes(twice) == [op.inputs[0].bytes]


def test_always_live_memory():
    """16 x 16 x 3 x 3 half weights on each of 8 layers, and float32 momentum for each of their elements."""
    program = dataclasses.replace(chain(), ops=chain().ops[:1])
    memory = estimate_program(program, Settings(gradient_accumulation=2, optimizer_state_bytes=8), POD16).stages[0].memory
    elements = sum(variable.tensor.elements for variable in program.variables)
    assert memory.weights == pytest.approx(2 * elements / 1472)
    assert memory.optimizer_state == pytest.approx(8 * elements / 1472)
    assert memory.accumulators == pytest.approx(4 * elements / 1472)
    shared = Settings(replication_factor=4, optimizer_state_bytes=8, is_optimizer_sharded=True)
    assert estimate_program(program, shared, POD16).stages[0].memory.optimizer_state == pytest.approx(2 * elements / 1472)
    away = Settings(optimizer_state_bytes=8, is_optimizer_off_chip=True)
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


def test_a_stage_of_frozen_layers_has_no_backward_pass_and_nothing_waits_in_it():
    program = with_splits(with_units(chain(), [f"net.{index}" for index in range(8)]), (3, 5, 7))
    ops = [op if op.block >= 5 else dataclasses.replace(op, input_gradients=0, parameter_gradients=0) for op in program.ops]
    variables = [dataclasses.replace(variable, is_trained=variable.block >= 5) for variable in program.variables]
    frozen = dataclasses.replace(program, ops=tuple(ops), variables=tuple(variables))
    settings_ = Settings(8, is_recomputed=True, optimizer_state_bytes=4)
    inference = dataclasses.replace(program, is_training=False)
    stages, whole, forward = (estimate_program(each, settings_, POD16).stages for each in (frozen, program, inference))
    for stage in (0, 1):
        assert stages[stage].forward == whole[stage].forward and stages[stage].backward.cycles == 0
        memory = stages[stage].memory
        assert (memory.stashes, memory.accumulators, memory.optimizer_state) == (0, 0, 0)
        assert memory.activations == forward[stage].memory.activations
    assert stages[3] == whole[3]
    estimates = [estimate_program(each, settings_, POD16) for each in (inference, frozen, program)]
    assert [estimate.step_macs / estimate.macs for estimate in estimates] == [1, 2, 3]  # half of the layers train


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
