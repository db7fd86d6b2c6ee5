"""The runtime below the faces: layout, precision, reduction, hoisting, random numbers, loss scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ipu_model.runtime.capture import Target, capture
from ipu_model.runtime.device.layout import ALL, EVERY_N, FINAL, SUM, Layout, OutputCollector, split
from ipu_model.runtime.device.random import DeviceRandom, host_random_kept
from ipu_model.runtime.gradients.loss_scaling import ASSUMED_EDGE, LossScaler
from ipu_model.runtime.gradients.reduction import Reduction, accumulate, reduce_replicas
from ipu_model.runtime.rounding import stochastic_round_to_half

SIZES = st.integers(1, 4)


@given(iterations=SIZES, accumulation=SIZES, replicas=SIZES)
def test_chunks_are_numbered_iterations_outermost_replicas_innermost(iterations, accumulation, replicas):
    layout = Layout(iterations, accumulation, replicas)
    order = [layout.input_chunk(d, g, r) for d in range(iterations) for g in range(accumulation) for r in range(replicas)]
    assert order == list(range(layout.num_chunks))


def test_input_groups_share_chunks():
    consecutive, orthogonal = Layout(1, 1, 4, 2), Layout(1, 1, 4, 2, is_orthogonal=True)
    assert [consecutive.input_chunk(0, 0, r) for r in range(4)] == [0, 0, 1, 1]
    assert [orthogonal.input_chunk(0, 0, r) for r in range(4)] == [0, 1, 0, 1]


def test_a_batch_that_does_not_divide_names_every_factor():
    with pytest.raises(AssertionError, match="10 .*deviceIterations 2 x gradientAccumulation 3 x replicationFactor 1 = 6"):
        split(torch.zeros(10, 2), Layout(2, 3, 1))


@pytest.mark.parametrize(
    ("mode", "period", "expected"),
    [
        (ALL, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (FINAL, 1, [6, 7]),
        (SUM, 1, [0 + 2 + 4 + 6, 1 + 3 + 5 + 7]),
        (EVERY_N, 2, [4, 5, 6, 7]),
    ],
)
def test_output_modes_over_2_iterations_2_steps_2_replicas(mode, period, expected):
    collector = OutputCollector(Layout(2, 2, 2), mode, period)
    for number in range(8):
        collector.add(number // 4, number // 2 % 2, number % 2, [torch.tensor(float(number)), torch.full((3, 1), float(number))])
    scalars, rows = collector.join()
    assert scalars.tolist() == expected
    assert rows.shape == (3 * len(expected), 1)


def test_a_single_scalar_stays_without_dimension():
    collector = OutputCollector(Layout(1, 1, 1), FINAL, 1)
    collector.add(0, 0, 0, [torch.tensor(2.0)])
    assert collector.join()[0].dim() == 0


# ---- precision


def test_stochastic_rounding_is_unbiased_and_exact_on_half_numbers(generator):
    exact = torch.randn(1000, generator=generator).half()
    assert torch.equal(stochastic_round_to_half(exact.float()), exact)
    value = torch.full((100_000,), 1 + 0.3 * 2**-10)  # 0.3 of the way between two half numbers
    torch.manual_seed(0)
    rounded = stochastic_round_to_half(value)
    assert set(rounded.tolist()) == {1.0, 1 + 2**-10}
    # Share that rounds up: 0.3, deviation sqrt(0.3 * 0.7 / 1e5) = 0.0015
    assert abs((rounded > 1).float().mean() - 0.3) < 0.006


@settings(max_examples=50, deadline=None)
@given(value=st.floats(-60000, 60000, width=32))
def test_stochastic_rounding_gives_a_neighbour(value):
    number = torch.tensor([value])
    rounded = stochastic_round_to_half(number).double().item()
    nearest = number.half()
    step = torch.tensor([max(abs(value) * 2**-10, 2**-24)]).item()
    assert abs(rounded - value) <= step
    assert abs(nearest.double().item() - value) <= step


def test_stochastic_rounding_keeps_what_is_not_finite():
    rounded = stochastic_round_to_half(torch.tensor([float("inf"), float("-inf"), float("nan")]))
    assert rounded[:2].tolist() == [float("inf"), float("-inf")] and rounded[2].isnan()


def captured_function(function, parameters, inputs, trainable=None):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in parameters.items():
                self.register_parameter(name, torch.nn.Parameter(value))

        def forward(self, *values):
            return function(self, *values)

    wanted = trainable if trainable is not None else [False] * len(parameters)
    return capture(Model(), parameters, wanted, {}, (inputs, {}), Target(is_training=any(wanted)))[0]


def run(captured, parameters, inputs):
    state = list(parameters.values())
    return captured.run(captured.prepare(state, []), state, [], list(inputs), torch.ones(()))[0]


def test_half_arithmetic_is_float32_rounded_at_the_borders():
    """A chain whose half intermediate would overflow: 300 * 300 = 90,000 > 65,504, then divided again."""
    captured = captured_function(lambda model, x: x * 300 * 300 / 300, {}, (torch.ones(2).half(),))
    (result,) = run(captured, {}, (torch.ones(2).half(),))
    assert result.dtype == torch.float16
    assert result.tolist() == [300.0, 300.0]


def test_an_explicit_cast_to_half_rounds():
    x = torch.tensor([1 + 2**-13])
    captured = captured_function(lambda model, x: x.half().float(), {}, (x,))
    assert run(captured, {}, (x,))[0].tolist() == [1.0]


def test_a_float32_weight_meeting_half_is_cast_and_gives_half():
    parameters = {"w": torch.full((1, 2), 1 + 2**-13)}
    inputs = (torch.ones(1, 2).half(),)
    captured = captured_function(lambda model, x: torch.nn.functional.linear(x, model.w), parameters, inputs)
    (result,) = run(captured, parameters, inputs)
    assert result.dtype == torch.float16
    assert result.item() == 2.0  # the weight rounds to 1


# ---- reduction, hoisting, random numbers, loss scale


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 5), replicas=st.integers(1, 4), is_running=st.booleans(), seed=st.integers(0, 99))
def test_means_and_sums_of_micro_batch_gradients(steps, replicas, is_running, seed):
    torch.manual_seed(seed)
    gradients = torch.randn(replicas, steps, 6)
    for is_mean in (True, False):
        rule = Reduction(is_mean, is_running, torch.float32)
        totals = []
        for replica in range(replicas):
            held = []
            for step in range(steps):
                held = accumulate(held, [gradients[replica, step].clone()], step, rule)
            totals.append(held)
        (result,) = reduce_replicas(totals, steps, rule)
        expected = gradients.mean(dim=(0, 1)) if is_mean else gradients.sum(dim=(0, 1))
        torch.testing.assert_close(result, expected)


def test_half_accumulators_round_after_every_step():
    rule = Reduction(is_mean=False, is_running=False, accumulator_dtype=torch.float16)
    held = accumulate([], [torch.tensor([2048.0])], 0, rule)
    for step in range(1, 4):
        held = accumulate(held, [torch.tensor([1.0])], step, rule)  # 2048 + 1 is half way, and rounds to even
    assert held[0].dtype == torch.float16 and held[0].item() == 2048


def test_what_depends_on_parameters_alone_is_computed_once():
    parameters = {"w": torch.randn(4, 4)}
    inputs = (torch.randn(2, 4),)
    captured = captured_function(lambda model, x: x @ (model.w.sin() @ model.w.cos()), parameters, inputs)
    prepared = captured.prepare(list(parameters.values()), [])
    assert len(prepared) == 1
    torch.testing.assert_close(prepared[0], parameters["w"].sin() @ parameters["w"].cos())
    torch.testing.assert_close(run(captured, parameters, inputs)[0], inputs[0] @ prepared[0])


def test_a_derived_value_that_is_written_in_place_is_computed_anew():
    def function(model, x):
        scaled = model.w * 2
        scaled.add_(x)
        return scaled

    parameters, inputs = {"w": torch.ones(3)}, (torch.ones(3),)
    captured = captured_function(function, parameters, inputs)
    state = list(parameters.values())
    prepared = captured.prepare(state, [])
    for _ in range(2):
        (result,), _ = captured.run(prepared, state, [], list(inputs), torch.ones(()))
        assert result.tolist() == [3.0] * 3


def test_random_numbers_of_parameters_shape_are_drawn_for_every_micro_batch():
    parameters, inputs = {"w": torch.ones(64)}, (torch.zeros(64),)
    captured = captured_function(lambda model, x: x + torch.rand_like(model.w), parameters, inputs)
    state = list(parameters.values())
    prepared = captured.prepare(state, [])
    draws = [captured.run(prepared, state, [], list(inputs), torch.ones(()))[0][0] for _ in range(2)]
    assert not torch.equal(*draws)


def test_device_random_streams_differ_and_repeat():
    def draw(random, replica, step):
        random.start(replica, step)
        return torch.rand(4).tolist()

    with host_random_kept():
        first, second = DeviceRandom(7), DeviceRandom(7)
        seen = [draw(first, replica, step) for replica in range(2) for step in range(2)]
        first.advance()
        seen.append(draw(first, 0, 0))
        assert len({str(numbers) for numbers in seen}) == 5
        second.state = first.state
        assert draw(second, 0, 0) == seen[-1]


def test_the_host_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with host_random_kept():
        DeviceRandom(1).start(0, 0)
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_automatic_loss_scale_halves_on_large_gradients_and_doubles_on_small_ones():
    scaler = LossScaler(8.0, is_automatic=True, device=torch.device("cpu"))
    small, large = [torch.ones(10)], [torch.full((10,), 2 * ASSUMED_EDGE)]
    assert scaler.unscale([g.clone() for g in small])[0].tolist() == [1 / 8] * 10
    assert scaler.scale.item() == 16
    scaler.unscale([g.clone() for g in large])
    assert scaler.scale.item() == 8
