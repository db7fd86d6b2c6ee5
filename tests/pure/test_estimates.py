"""The cost model's memory, throughput, splits and reports, on programs written by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings, strategies as st
from written_programs import chain, convolution, operation, program_of

from ipu_model.cost import assumptions
from ipu_model.cost.confidence import expected_error, extrapolations
from ipu_model.cost.estimate import estimate_program
from ipu_model.cost.hardware import BOW, GC200, MACHINES
from ipu_model.cost.insights import insights
from ipu_model.cost.memory import boundary_bytes, stored_bytes
from ipu_model.cost.page import comparison_page, report_page
from ipu_model.cost.settings import OptimizerCost, Settings
from ipu_model.cost.splits import best_cuts, largest_micro_batch, with_micro_batch, with_splits, with_units
from ipu_model.cost.tables import table, text_report
from ipu_model.program.simplify import simplified

POD16 = MACHINES["pod16"]
MOMENTA = OptimizerCost(state_bytes=8)


# ---- memory


def test_the_backward_pass_stores_each_tensor_once():
    op = convolution()
    twice = (op, dataclasses.replace(op, writes=9))
    assert stored_bytes(twice) == [op.inputs[0].bytes]


def test_always_live_memory():
    """16 x 16 x 3 x 3 half weights on each of 8 layers, and float32 momentum for each of their elements."""
    program = dataclasses.replace(chain(), ops=chain().ops[:1])
    memory = estimate_program(program, Settings(gradient_accumulation=2, optimizer=MOMENTA), POD16).ipus[0].memory
    elements = sum(variable.tensor.elements for variable in program.variables)
    assert memory.weights == pytest.approx(2 * elements / 1472)
    assert memory.optimizer_state == pytest.approx(8 * elements / 1472)
    assert memory.accumulators == pytest.approx(4 * elements / 1472)
    shared = Settings(replication_factor=4, optimizer=MOMENTA, is_optimizer_sharded=True)
    assert estimate_program(program, shared, POD16).ipus[0].memory.optimizer_state == pytest.approx(2 * elements / 1472)
    away = Settings(optimizer=MOMENTA, is_optimizer_off_chip=True)
    assert estimate_program(program, away, POD16).ipus[0].memory.optimizer_state == 0


def test_a_combined_accumulator_is_there_once():
    program = dataclasses.replace(chain(), ops=chain().ops[:1])
    elements = sum(variable.tensor.elements for variable in program.variables)

    def kept(optimizer):
        memory = estimate_program(program, Settings(gradient_accumulation=2, optimizer=optimizer), POD16).ipus[0].memory
        return (memory.optimizer_state + memory.accumulators) * 1472 / elements

    assert kept(OptimizerCost(state_bytes=2, gradient_bytes=2, is_sum_in_state=True)) == pytest.approx(2)
    assert kept(OptimizerCost(state_bytes=2, gradient_bytes=2)) == pytest.approx(4)
    assert kept(OptimizerCost(state_bytes=6, gradient_bytes=2)) == pytest.approx(8)  # one momentum in half


def test_recomputation_trades_cycles_for_memory():
    plain, recomputed = (estimate_program(chain(24), Settings(is_recomputed=choice), POD16) for choice in (False, True))
    assert recomputed.ipus[0].memory.activations < plain.ipus[0].memory.activations
    again = recomputed.stages[0].cycles - plain.stages[0].cycles
    assert 0 < again < plain.stages[0].forward.cycles  # the last piece is still there


def test_pipeline_stages_are_recomputed_whole_but_for_the_last():
    plain, recomputed = (estimate_program(four_stages(), Settings(8, is_recomputed=choice), POD16) for choice in (False, True))
    again = [b.cycles - a.cycles for a, b in zip(plain.stages, recomputed.stages)]
    assert again == pytest.approx([stage.forward.cycles for stage in plain.stages[:-1]] + [0])
    for before, after in zip(plain.ipus, recomputed.ipus):
        assert after.memory.activations == before.memory.activations  # all of a stage is there when its backward pass begins
        assert after.memory.stashes < before.memory.stashes or before.ipu == 3


def test_liveness_ends_at_the_worst_point_and_comes_back():
    for settings_ in (Settings(8), Settings(8, is_recomputed=True)):
        ipu = estimate_program(chain(12), settings_, POD16).ipus[0]
        assert ipu.liveness[-1] == pytest.approx(ipu.memory.always_live)
        assert max(ipu.liveness) == pytest.approx(ipu.memory.always_live + ipu.memory.activations)


def four_stages(**changes):
    """Eight convolutions in stages of 2, 2, 2 and 2."""
    program = with_splits(with_units(chain(), [f"net.{index}" for index in range(8)]), (3, 5, 7))
    return dataclasses.replace(program, **changes)


def test_earlier_stages_hold_more_micro_batches():
    one = convolution().output.bytes / 1472

    def stashes(settings_):
        return [round(ipu.memory.stashes / one, 6) for ipu in estimate_program(four_stages(), settings_, POD16).ipus]

    assert stashes(Settings(8, is_recomputed=True)) == [6, 4, 2, 0]
    assert stashes(Settings(8, schedule="interleaved", is_recomputed=True)) == [3, 2, 1, 0]
    assert stashes(Settings(8, schedule="sequential", is_recomputed=True)) == [0, 0, 0, 0]
    assert stashes(Settings(3, is_recomputed=True)) == [2, 2, 2, 0]  # no more than there are
    assert stashes(Settings(8)) == [12, 8, 4, 0]  # without recomputation both of a stage's convolutions keep their inputs


def test_stages_on_ipus_in_reversed_order():
    """Order and transfers follow the stages, memory follows the IPUs."""
    straight = estimate_program(four_stages(), Settings(8, is_recomputed=True), POD16)
    program = four_stages(stages=dataclasses.replace(four_stages().stages, ipus=(3, 2, 1, 0)))
    reversed_ = estimate_program(program, Settings(8, is_recomputed=True), POD16)
    assert [stage.ipu for stage in reversed_.stages] == [3, 2, 1, 0]
    assert reversed_.step_cycles == straight.step_cycles and reversed_.timeline == straight.timeline
    assert [stage.transfer_cycles for stage in reversed_.stages] == [stage.transfer_cycles for stage in straight.stages]
    assert all(stage.transfer_cycles > 0 for stage in reversed_.stages[1:])
    assert [ipu.memory for ipu in reversed_.ipus] == [ipu.memory for ipu in straight.ipus][::-1]
    assert "IPU 0 (stage 3)" in text_report("reversed", program, reversed_)


def test_stages_that_share_an_ipu():
    """Stages 0 and 1 on IPU 0, 2 and 3 on IPU 1: weights and stashes add up, activations are those of one at a time."""
    settings_ = Settings(8, is_recomputed=True)
    apart = estimate_program(four_stages(), settings_, POD16)
    program = four_stages(stages=dataclasses.replace(four_stages().stages, ipus=(0, 0, 1, 1)))
    shared = estimate_program(program, settings_, POD16)
    assert (shared.num_ipus, len(shared.ipus), len(shared.stages), shared.ipus[1].stages) == (2, 2, 4, (2, 3))
    assert [stage.transfer_cycles > 0 for stage in shared.stages] == [True, False, True, False]  # within an IPU nothing crosses
    for ipu, pair in zip(shared.ipus, (apart.ipus[:2], apart.ipus[2:])):
        assert ipu.memory.weights == pytest.approx(sum(one.memory.weights for one in pair))
        assert ipu.memory.stashes == pytest.approx(sum(one.memory.stashes for one in pair))
        assert ipu.memory.activations == max(one.memory.activations for one in pair)
    assert shared.step_cycles > 1.5 * apart.step_cycles


def test_an_unused_low_ipu_is_occupied():
    program = four_stages(stages=dataclasses.replace(four_stages().stages, ipus=(4, 5, 6, 7)))
    estimate = estimate_program(program, Settings(8, replication_factor=2), POD16)
    assert estimate.num_ipus == 16 and [ipu.ipu for ipu in estimate.ipus] == [4, 5, 6, 7]


def test_cuts_and_estimate_see_the_same_boundaries():
    """A norm between casts: removing them leaves its readers a writer, so that the stage behind it takes the whole tensor."""
    half, wide = ("float16", "float32")
    ops = [
        operation("conv", 0, 1),
        operation("cast", 1, 2, half, wide),
        operation("norm", 2, 3, wide, wide),
        operation("cast", 3, 4, wide, half),
        operation("conv", 4, 5),
    ]
    ops = [dataclasses.replace(op, path=f"net.{number}") for number, op in zip((0, 1, 1, 1, 2), ops)]
    program = with_splits(with_units(program_of(*ops), ["net.0", "net.1", "net.2"]), (3,))
    assert boundary_bytes(simplified(program), 1) == boundary_bytes(program, 1) == 2 * 4 * 16 * 8 * 8


def test_a_stage_of_frozen_layers_has_no_backward_pass_and_nothing_waits_in_it():
    program = four_stages()
    ops = [op if op.block >= 5 else dataclasses.replace(op, input_gradients=0, parameter_gradients=0) for op in program.ops]
    variables = [dataclasses.replace(variable, is_trained=variable.block >= 5) for variable in program.variables]
    frozen = dataclasses.replace(program, ops=tuple(ops), variables=tuple(variables))
    settings_ = Settings(8, is_recomputed=True, optimizer=OptimizerCost(state_bytes=4))
    inference = dataclasses.replace(program, is_training=False)
    part, whole, forward = (estimate_program(each, settings_, POD16) for each in (frozen, program, inference))
    for stage in (0, 1):
        assert part.stages[stage].forward == whole.stages[stage].forward and part.stages[stage].backward.cycles == 0
        memory = part.ipus[stage].memory
        assert (memory.stashes, memory.accumulators, memory.optimizer_state) == (0, 0, 0)
        assert memory.activations == forward.ipus[stage].memory.activations
    assert (part.stages[3], part.ipus[3]) == (whole.stages[3], whole.ipus[3])
    assert [estimate.step_macs / estimate.macs for estimate in (forward, part, whole)] == [1, 2, 3]  # half of the layers train


# ---- whole programs


def test_throughput_scales_with_the_clock_and_the_replicas():
    one = estimate_program(chain(), Settings(16), POD16)
    four = estimate_program(chain(), Settings(16, 4), POD16)
    assert four.images_per_second == pytest.approx(4 * one.images_per_second, rel=0.05)  # the reduction over replicas costs something
    inside = Settings(16, io_tiles=32)  # without the host, whose links are as fast on both
    slow, fast = (estimate_program(chain(), inside, MACHINES[name]).images_per_second for name in ("pod16", "bow-pod16"))
    assert fast / slow == pytest.approx(BOW.clock_hz / GC200.clock_hz, rel=0.01)


def test_json_has_what_programs_read():
    estimate = estimate_program(four_stages(), Settings(8, memory_proportions=(0.1, 0.2)), POD16)
    values = json.loads(json.dumps(estimate.as_json()))
    assert values["schema_version"] == 2 and values["settings"]["memory_proportions"] == [0.1, 0.2]
    assert {"images_per_second", "step_cycles", "bubble_fraction", "fits", "num_ipus"} <= set(values)
    first = values["ipus"][0]
    assert first["limit_bytes_per_tile"] == 624 * 1024
    assert sum(first["bytes_per_tile"].values()) == pytest.approx(first["peak_bytes_per_tile"])
    assert [stage["ipu"] for stage in values["stages"]] == [0, 1, 2, 3]
    assert set(values["assumptions"]) == {assumption.name for assumption in assumptions.listed()}


@pytest.mark.parametrize("is_training", [True, False])
def test_layers_add_up_to_their_stages(is_training):
    program = four_stages(is_training=is_training)
    estimate = estimate_program(program, Settings(8, device_iterations=4, is_recomputed=True), POD16)
    assert sum(layer.cycles for layer in estimate.layers) == pytest.approx(sum(stage.cycles for stage in estimate.stages))
    first = next(layer for layer in estimate.layers if layer.path == "net.0")
    assert (first.kind, first.methods) == ("conv", ("AMP",))
    assert (first.weight_gradient > 0, first.recomputation == first.forward) == (is_training, is_training)


def test_a_throughput_says_how_far_to_trust_it():
    """Twice the root mean square of the errors left out; a line for what lies outside of what was compared."""
    program = chain(batch=8)
    assert 0.08 < expected_error() < 0.10
    assert extrapolations(program, estimate_program(program, Settings(8), POD16)) == []
    large = chain(batch=64)
    (line,) = extrapolations(large, estimate_program(large, Settings(8), POD16))
    assert "The micro batch of 64 is outside" in line
    bow = estimate_program(program, Settings(8), MACHINES["bow-pod16"])
    assert any("Releases of 2022" in line for line in insights(program, bow))
    text = text_report("chain", program, bow)
    assert "+-9 %" in text and "largest micro batch" in text


@pytest.mark.slow
def test_what_does_not_fit_says_so_and_what_would_help():
    program = with_micro_batch(chain(40), 4096)
    estimate = estimate_program(program, Settings(4), POD16)
    text = " ".join(insights(program, estimate))
    assert not estimate.fits and "IPU 0 does not fit" in text and "a micro batch of" in text
    largest = largest_micro_batch(program, Settings(4), POD16)
    assert estimate_program(with_micro_batch(program, largest), Settings(4), POD16).fits
    assert not estimate_program(with_micro_batch(program, largest + 1), Settings(4), POD16).fits


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=3, max_size=7), st.integers(2, 3))
def test_splits_are_the_best_of_all(widths, stages):
    """Against every way to cut a small model."""
    import itertools

    program = with_units(chain(len(widths), widths=widths), [f"net.{index}" for index in range(len(widths))])
    cuts = best_cuts(program, stages, Settings(8), POD16)

    def slowest(choice):
        result = estimate_program(with_splits(program, choice), Settings(8), POD16)
        return max(stage.cycles for stage in result.stages)

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
    for assumption in assumptions.listed():
        assert assumption.name in text and assumption.name in page
        assert assumption.meaning in text and assumption.source in text
    stated = {name for name in vars(assumptions) if name.startswith("ASSUMED_")}
    assert stated == {assumption.name for assumption in assumptions.listed()}
    assert sum(assumption.is_fitted for assumption in assumptions.listed()) == 2
    assert "a &lt;b&gt;" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    order = [page.index(f'id="{name}"') for name in ("summary", "insights", "memory", "cycles", "layers", "assumptions")]
    assert order == sorted(order)
    assert "chain" in comparison_page(["chain"], [estimate])


def test_tables_align():
    assert table([["a", "1", "2"], ["bbb", "10", "3"]]) == "  a     1  2\n  bbb  10  3"
