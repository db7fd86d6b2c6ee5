"""The loop with programs of the test's own: no IPU Model, no network, a few milliseconds a run."""

from __future__ import annotations

import copy
import csv
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from loop_programs import CALLS, Device, trainer_in

from config import AveragingConfig
from training.averaging import WeightAverage
from training.errors import TrainingError
from training.run.checkpoint import load_checkpoint


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("training.run.keeping.draw_curves", lambda *_: None)


def rows(folder, name="training.csv"):
    with open(folder / name, newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("images_per_second", "data_wait")} for row in csv.DictReader(file)]


def test_epochs_of_calls_with_the_rate_of_their_middle(tmp_path):
    device = Device()
    summary, code = trainer_in(tmp_path, device, schedule="cosine", warmup_epochs=0.0, base_learning_rate=1 / 3).train()
    # Full rate 1/3 x 3 images; call n of 6 is trained at (1 + cos(pi (n + 1/2) / 6)) / 2.
    wanted = [(n // 3, n % 3, pytest.approx((1 + math.cos(math.pi * (n + 0.5) / 6)) / 2)) for n in range(6)]
    assert (code, device.calls) == (0, wanted)
    assert [row["update"] for row in rows(tmp_path)] == list("123456")
    assert (summary["epochs"], summary["updates"]) == (2, 6)
    assert device.holder is not None  # the training model took the device back after validation


def test_several_updates_in_a_call_count_as_such(tmp_path):
    trainer_in(tmp_path, Device(), device_iterations=4, log_every_steps=8).train()
    # 3 calls x 4 updates: 8 is passed by the second call of each epoch, and ends of epochs are logged always.
    assert [row["update"] for row in rows(tmp_path)] == ["8", "12", "16", "24"]


@pytest.mark.parametrize(
    ("fields", "validated", "files"),
    [
        ({}, ["1", "2", "3"], {"last.pt", "best.pt"}),
        ({"validate_every_epochs": 2}, ["2", "3"], {"last.pt", "best.pt"}),
        ({"validate_every_epochs": None, "checkpoint_every_epochs": 2}, ["3"], {"last.pt", "best.pt", "epoch-0002.pt"}),
    ],
)
def test_what_is_due_happens_at_ends_of_epochs(tmp_path, fields, validated, files):
    trainer_in(tmp_path, Device(), epochs=3, **fields).train()
    assert [row["epoch"] for row in rows(tmp_path, "validation.csv")] == validated
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == files


def test_the_best_checkpoint_is_the_first_of_the_best(tmp_path):
    """The weight grows by 0.1 x (1 + 2 + 3) = 0.6 an epoch and passes 1 in the second: 25 %, then 75 % twice."""
    device = Device()
    fields = dict(epochs=3, schedule="constant", warmup_epochs=0.0, base_learning_rate=0.1 / 3)
    summary, _ = trainer_in(tmp_path, device, **fields).train()
    assert [float(row["top1"]) for row in rows(tmp_path, "validation.csv")] == [25.0, 75.0, 75.0]
    assert (summary["best_epoch"], summary["best_val_top1"]) == (2, 75.0)
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["position"]["epoch"] == 2


def test_both_kinds_of_weights_are_validated_and_the_average_is_preferred(tmp_path):
    """The weight grows by 0.05 x (1 + 2 + 3) = 0.3 an epoch and is 1.2 after four; the average stays below 1."""
    fields = dict(averaging="exponential", averaging_decay=0.9, schedule="constant", warmup_epochs=0.0, base_learning_rate=0.05 / 3)
    summary, _ = trainer_in(tmp_path, Device(), epochs=4, **fields).train()
    found = [(row["weights"], float(row["top1"])) for row in rows(tmp_path, "validation.csv")]
    assert [kind for kind, _ in found] == ["current", "averaged"] * 4
    assert found[-2:] == [("current", 75.0), ("averaged", 25.0)]
    assert (summary["val_top1"], summary["weights"], summary["best_val_top1"]) == (25.0, "averaged", 25.0)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(1, 4), min_size=1, max_size=3), kind=st.sampled_from(["none", "exponential", "mean"]))
def test_a_run_that_is_stopped_anywhere_goes_on_bit_for_bit(tmp_path_factory, stops, kind):
    """After any call, be it the last of an epoch, whose end is then still to come; again and again."""
    fields = dict(averaging=kind, averaging_decay=0.75, averaging_last=1, optimizer="sgd", schedule="cosine", warmup_epochs=0.5)
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    trainer_in(whole, Device(), **fields).train()
    code, checkpoint = 0, None
    for number in [*stops, 0]:
        trainer = trainer_in(parts, Device(stop_after=number), **fields)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        code = trainer.train()[1]
        checkpoint = load_checkpoint(parts / "checkpoints" / "last.pt")
    assert code == 0
    for name in ("training.csv", "validation.csv"):
        assert rows(parts, name) == rows(whole, name)
    expected = load_checkpoint(whole / "checkpoints" / "last.pt")
    for key in ("model", "optimizer", "averaging", "device_random", "config"):
        assert checkpoint[key] == expected[key], key


def test_what_was_learnt_outlives_a_validation_that_fails(tmp_path):
    """The run goes on with that validation, and ends as one that was never disturbed."""
    whole, parts, checkpoint = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts" / "checkpoints" / "last.pt"
    fields = dict(averaging="exponential", optimizer="sgd", schedule="cosine", warmup_epochs=0.5)
    trainer_in(whole, Device(), **fields).train()
    with pytest.raises(OSError, match="unreadable"):
        broken = trainer_in(parts, Device(), **fields)
        broken._validator = BrokenValidator(broken._validator, fails_at=2)
        broken.train()
    assert load_checkpoint(checkpoint)["position"]["update"] == 2 * CALLS
    trainer = trainer_in(parts, Device(), **fields)
    trainer.restore(load_checkpoint(checkpoint))
    assert trainer.train()[1] == 0
    assert rows(parts, "validation.csv") == rows(whole, "validation.csv")
    assert load_checkpoint(checkpoint)["averaging"] == load_checkpoint(whole / "checkpoints" / "last.pt")["averaging"]


class BrokenValidator:
    """Fails in one of its calls, as a set with too many unreadable pictures does."""

    def __init__(self, validator, fails_at):
        self.validator, self.calls, self.fails_at = validator, 0, fails_at

    def __call__(self, kinds):
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError("unreadable")
        return self.validator(kinds)


def test_a_signal_ends_with_its_exit_code_and_a_checkpoint(tmp_path):
    device = Device(stop_after=2)
    summary, code = trainer_in(tmp_path, device).train()
    assert (code, len(device.calls), summary["updates"]) == (130, 2, 2)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["position"]["call"] == 2


def test_checkpoints_between_ends_of_epochs(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "training.run.keeping.save_checkpoint", lambda path, payload: saved.append((path.name, payload["position"]["update"]))
    )
    trainer_in(tmp_path, Device(), epochs=1, checkpoint_every_steps=2).train()
    assert saved == [("last.pt", 2), ("last.pt", 3), ("last.pt", 3), ("best.pt", 3)]  # before validation, and after it


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_what_was_written(tmp_path):
    device = Device(loss_of=lambda weight: math.nan if len(device.calls) == 2 else 1.0)
    with pytest.raises(TrainingError, match="not finite after update 1"):
        trainer_in(tmp_path, device, checkpoint_every_steps=1).train()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["position"]["update"] == 1


def test_all_of_an_averages_state_comes_back():
    """The epoch of the last update among it, from which the decay of the next is counted."""
    whole = WeightAverage(AveragingConfig(averaging="exponential", averaging_decay=0.5), epochs=9)
    whole.update({"w": torch.tensor([4.0])}, 1)
    again = WeightAverage(AveragingConfig(averaging="exponential", averaging_decay=0.5), epochs=9)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for average in (whole, again):
        average.update({"w": torch.tensor([0.0])}, 3)
        assert average.weights["w"].item() == 4.0 * 0.5**2  # two epochs have passed
