"""Learning rate and loss scale over time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from config import OptimizerConfig, ScheduleConfig
from training.schedule import is_due, learning_rate, loss_scale

EPOCHS = st.floats(0, 350)


def test_exponential_drops_in_steps_after_a_linear_warm_up():
    schedule = ScheduleConfig(schedule="exponential", epochs=350, warmup_epochs=5.0, decay_factor=0.97, decay_every_epochs=2.4)
    assert learning_rate(schedule, 0.5, 1.0) == pytest.approx(0.5 * 1 / 5)
    assert learning_rate(schedule, 0.5, 4.9) == pytest.approx(0.5 * 4.9 / 5 * 0.97**2)  # floor(4.9 / 2.4) = 2
    assert learning_rate(schedule, 0.5, 24.1) == pytest.approx(0.5 * 0.97**10)


def test_the_papers_schedule_drops_146_times():
    schedule = ScheduleConfig()
    assert learning_rate(schedule, 1.0, 350 - 1e-6) == pytest.approx(0.97**145)  # the 146th falls on the end


def test_cosine_ends_at_zero_and_step_multiplies():
    cosine = ScheduleConfig(schedule="cosine", epochs=10, warmup_epochs=0.0)
    assert learning_rate(cosine, 2.0, 5.0) == pytest.approx(1.0)
    assert learning_rate(cosine, 2.0, 10.0) == pytest.approx(0.0)
    step = ScheduleConfig(schedule="step", warmup_epochs=0.0, decay_factor=0.1, decay_milestones_epochs=(3.0, 6.0))
    assert [round(learning_rate(step, 1.0, e), 6) for e in (2.9, 3.0, 6.5)] == [1.0, 0.1, 0.01]


@given(epoch=EPOCHS, kind=st.sampled_from(["constant", "exponential", "cosine", "step"]))
def test_the_rate_never_leaves_zero_to_peak(epoch, kind):
    rate = learning_rate(ScheduleConfig(schedule=kind), 0.3, epoch)
    assert 0 <= rate <= 0.3


def test_a_ramp_doubles_in_equal_intervals():
    ramp = OptimizerConfig(loss_scaling_mode="ramp", initial_loss_scaling=1.0, loss_scaling=8.0)
    assert [loss_scale(ramp, share) for share in (0.0, 0.25, 0.5, 0.75, 0.99)] == [1, 2, 4, 8, 8]


@given(initial=st.floats(1, 100), final=st.floats(100, 5000), share=st.floats(0, 1))
def test_a_ramp_stays_between_its_ends(initial, final, share):
    ramp = OptimizerConfig(loss_scaling_mode="ramp", initial_loss_scaling=initial, loss_scaling=final)
    assert initial <= loss_scale(ramp, share) <= final
    assert loss_scale(ramp, 0.0) == initial


def test_fixed_and_automatic_start_at_the_stated_scale():
    for mode in ("fixed", "automatic"):
        assert loss_scale(OptimizerConfig(loss_scaling_mode=mode, loss_scaling=128.0), 0.5) == 128


@given(total=st.integers(1, 50), every=st.integers(1, 60))
def test_what_is_due_every_so_often_is_due_at_the_end_too(total, every):
    due = [count for count in range(1, total + 1) if is_due(count, every, count == total)]
    assert due[-1] == total
    assert len(due) == math.ceil(total / every)
    assert not is_due(total, None, True)
