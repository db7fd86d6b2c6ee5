"""The preset `tiny` through train.py's own functions: losses, equal ways of running, resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from running import PLAIN, rows, run, train, validated

from config import UserError, load_preset
from training.errors import CheckpointError
from training.step import Step


def test_a_run_writes_its_files(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert names == {
        "config.yml",
        "training.csv",
        "validation.csv",
        "summary.json",
        "curves.png",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "checkpoints/epoch-0001.pt",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert {"val_top1", "val_top5", "val_loss", "images_per_second", "epochs", "checkpoint"} <= set(summary)
    assert summary["epochs"] == 1 and summary["weights"] == "averaged"


@pytest.mark.slow
def test_device_iterations_change_the_calls_not_the_data(tmp_path):
    """Three updates in one call or in three see the same images; only the learning rate is held for a call."""
    constant = dict(**PLAIN, schedule="constant", warmup_epochs=0.0)
    single = run(tmp_path / "single", **constant)
    joined = run(tmp_path / "joined", device_iterations=3, **constant)
    mean = sum(float(row["loss"]) for row in single) / 3
    assert [row["update"] for row in joined] == ["3"]
    assert float(joined[0]["loss"]) == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
def test_workers_do_not_change_results(tmp_path, finished_run):
    assert run(tmp_path / "helped", num_workers=2, **PLAIN) == rows(finished_run(**PLAIN))


@pytest.mark.slow
def test_a_run_comes_out_the_same_again(tmp_path, finished):
    assert run(tmp_path / "again") == rows(finished)


@pytest.mark.slow
def test_another_seed_makes_another_run(finished_run):
    assert rows(finished_run(seed=1, **PLAIN)) != rows(finished_run(**PLAIN))


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        dict(**PLAIN, optimizer="sgd", loss_scaling_mode="automatic"),
        dict(norm="layer", proxy_norm=False, precision="16.16", stochastic_rounding=True),
    ],
)
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, values):
    """Stopped after the first of two epochs and in the middle of the second, by way of a checkpoint every update."""
    whole = run(tmp_path / "whole", epochs=2, **values)
    run(tmp_path / "parts", epochs=1, **values)
    run(tmp_path / "parts", epochs=2, resume="auto", allow_change=("epochs",), **values)
    assert rows(tmp_path / "parts") == whole
    assert rows(tmp_path / "parts", "validation.csv") == rows(tmp_path / "whole", "validation.csv")


def test_resuming_from_the_middle_of_an_epoch(tmp_path, monkeypatch, finished_run):
    step, calls = Step.__call__, []

    def stop_after_two(self, *arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(step(self, *arguments))
        return calls[-1]

    monkeypatch.setattr(Step, "__call__", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", checkpoint_every_steps=1, **PLAIN)
    monkeypatch.undo()
    assert run(tmp_path / "stopped", resume="auto", **PLAIN) == rows(finished_run(**PLAIN))


@pytest.mark.slow
def test_a_signal_stops_after_its_call_and_the_run_goes_on(tmp_path, monkeypatch, finished_run):
    """After the last call of an epoch, whose end is then still to come; test_trainer.py stops anywhere."""
    whole, calls = finished_run(epochs=2, **PLAIN), 3
    step, done = Step.__call__, []

    def signal_after(self, *arguments):
        done.append(step(self, *arguments))
        if len(done) == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return done[-1]

    monkeypatch.setattr(Step, "__call__", signal_after)
    values = {**PLAIN, "output": str(tmp_path / "stopped"), "log_every_steps": 1, "epochs": 2}
    assert train(load_preset("tiny", values)) == 130
    assert len(done) == calls
    monkeypatch.undo()
    assert run(tmp_path / "stopped", epochs=2, resume="auto", **PLAIN) == rows(whole)
    assert rows(tmp_path / "stopped", "validation.csv") == rows(whole, "validation.csv")


def test_a_changed_config_does_not_resume(tmp_path, finished):
    with pytest.raises(CheckpointError, match="seed was 42, is 7.*--allow-change seed"):
        run(tmp_path / "run", resume="auto", seed=7)


def test_validate_needs_only_the_checkpoint_and_agrees_with_training(finished):
    recorded = {row["weights"]: row for row in rows(finished, "validation.csv")}
    for kind in ("averaged", "current"):
        result = validated(finished, "--weights", kind)
        assert result["val_loss"] == pytest.approx(float(recorded[kind]["loss"]), rel=1e-6)
        assert result["val_top1"] == float(recorded[kind]["top1"])
        assert result["images"] == 10  # a fifth of 54, not a multiple of any batch


@pytest.mark.slow
def test_validate_takes_any_size_and_any_batch(tmp_path, finished_run):
    """In float32: half kernels of other batch sizes round elsewhere, 2^-11 at a time."""
    finished = tmp_path / "run"
    shutil.copytree(finished_run(precision="32.32", **PLAIN), finished)
    results = [validated(finished, "--replicas", 1, "--validation-micro-batch-size", size) for size in (1, 4)]
    assert results[0]["val_loss"] == pytest.approx(results[1]["val_loss"], rel=1e-5)
    assert validated(finished, "--validation-image-size", 24)["image_size"] == 24


@pytest.mark.slow
def test_exported_weights_load(tmp_path, finished):
    from safetensors.torch import load_file

    from models.factory import build_model

    validated(finished, "--export", tmp_path / "out" / "w.safetensors")
    network = build_model(load_preset("tiny", {}).model, 10)
    network.load_state_dict(load_file(str(tmp_path / "out" / "w.safetensors")))


@pytest.mark.slow
def test_averaged_weights_that_are_not_there_are_an_error(tmp_path):
    run(tmp_path / "run", averaging="none", **PLAIN)
    with pytest.raises(CheckpointError, match="no averaged weights"):
        validated(tmp_path / "run", "--weights", "averaged")


@pytest.mark.slow
def test_other_classes_than_the_checkpoints_are_refused(tmp_path, finished):
    (tmp_path / "pictures").mkdir()
    from PIL import Image

    for part in ("train", "val"):
        for name in ("x", "y"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / part / name / "0.png")
    with pytest.raises(UserError, match="2 classes that training lacks: x, y"):
        validated(finished, "--dataset", "folder", "--data-path", tmp_path / "pictures")


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        dict(**PLAIN, optimizer="adamw", schedule="cosine"),
        dict(**PLAIN, optimizer="sgd", combined_accumulator=True, accumulator_type="float16", schedule="step", precision="32.32"),
        dict(**PLAIN, loss_scaling_mode="ramp", averaging="mean", eight_bit_io=False),
        dict(norm="batch", proxy_norm=False, dataset="synthetic", image_size=16, optimizer="sgd", precision="32.32"),
        dict(architecture="resnet18", norm="group", proxy_norm=False, pipeline_splits=("layer2",), image_size=32),
        dict(norm="none", proxy_norm=False, pipeline_splits=(), validate_every_epochs=None),
    ],
)
def test_other_ways_of_training_run(tmp_path, values):
    assert len(run(tmp_path / "run", **values)) == 3
