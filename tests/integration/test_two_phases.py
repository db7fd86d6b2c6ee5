"""Both phases from one command, each resumed, and the second alone; test sizes and averages of the runs; summaries."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from running import rows, train, validate

import summary as summary_entry
import train as entry
from assembly import resolution_warning
from cli import parse_summary_arguments, parse_training_arguments
from config import load_preset

FINE_TUNING = dict(
    proxy_norm=False, epochs=1, log_every_steps=1, checkpoint_every_epochs=1, averaging_decay=0.5, fine_tune_epochs=2,
    fine_tune_image_size=16,
    fine_tune_trainable_layers=("conv_head", "bn2", "classifier"), fine_tune_global_batch_size=18, fine_tune_micro_batch_size=3,
    fine_tune_replicas=2, fine_tune_base_learning_rate=1e-3, fine_tune_warmup_epochs=0.5,
)  # fmt: skip


def checkpoint(folder, name="last.pt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of both phases."""
    folder = tmp_path_factory.mktemp("phases") / "run"
    assert train(load_preset("tiny", {**FINE_TUNING, "output": str(folder)})) == 0
    return folder


@pytest.mark.slow
def test_one_command_trains_and_then_fine_tunes_the_top_from_the_average(run):
    first, second = checkpoint(run), checkpoint(run / "fine-tune")
    assert second["config"]["data"]["image_size"] == 16 and second["position"]["epoch"] == 2
    trained = {name for name in second["model"] if name.split(".")[0] in FINE_TUNING["fine_tune_trainable_layers"]}
    for name, value in second["model"].items():
        assert torch.equal(value, first["averaging"]["average"][name]) == (name not in trained), name
    state = {key.split("___")[1] for key in second["optimizer"]["ipu_state"]}
    parameters = {"classifier.network." + name for name in trained if not name.endswith("quantiles")}
    assert state == parameters  # no momentum, no mean square of a frozen layer


@pytest.mark.slow
def test_the_second_phase_resumes_and_runs_alone(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    checkpoints = copy / "fine-tune" / "checkpoints"
    for path in (checkpoints / "best.pt", checkpoints / "epoch-0002.pt", checkpoints / "last.pt"):
        path.unlink()
    assert train(load_preset("tiny", {**FINE_TUNING, "output": str(copy), "resume": "auto"})) == 0
    assert rows(copy / "fine-tune") == rows(run / "fine-tune")

    alone = ["--fine-tune-from", str(run), "--output", str(tmp_path / "alone"), "--fine-tune-epochs", "2"]
    assert entry.tell(parse_training_arguments(alone)) == 0
    assert "preset: tiny" in (tmp_path / "alone" / "config.yml").read_text()
    assert rows(tmp_path / "alone") == rows(run / "fine-tune")
    assert "fine-tuning 2 epochs at 16 pixels: conv_head bn2 classifier" in capsys.readouterr().out


@pytest.mark.slow
def test_a_checkpoint_of_another_network_and_a_layer_that_does_not_exist(run, tmp_path):
    other = load_preset("digits-half", {"fine_tune_from": str(run), "output": str(tmp_path / "a"), "norm": "group", "proxy_norm": False})
    with pytest.raises(ValueError, match="is of another network: it has norm 'layer', the config 'group'"):
        train(other)
    wrong = {**FINE_TUNING, "fine_tune_trainable_layers": ("top",), "fine_tune_from": str(run), "output": str(tmp_path / "b")}
    with pytest.raises(ValueError, match="trainable layer 'top' does not exist"):
        train(load_preset("tiny", wrong))


@pytest.mark.slow
def test_validation_over_sizes_and_of_offline_averages(run, capsys):
    assert validate("--checkpoint", run / "fine-tune" / "checkpoints" / "last.pt", "--image-sizes", "8:24:8") == 0
    table = rows(run / "fine-tune", "image-sizes.csv")
    assert [row["image_size"] for row in table] == ["8", "16", "24"]
    lines = capsys.readouterr().out.splitlines()
    best = max(table, key=lambda row: float(row["top1"]))
    assert f"best size   {best['image_size']} pixels, top-1 {float(best['top1']):.2f} %" in lines
    # The same numbers as one validation at that size, and as the fine-tuning run itself found.
    (last,) = rows(run / "fine-tune", "validation.csv")[-1:]
    assert table[1]["top1"] == last["top1"] and table[1]["loss"] == last["loss"]

    assert validate("--checkpoint", run, "--averaged", "exponential", "--export", run / "a.safetensors") == 0
    assert validate("--checkpoint", run, "--weights", "averaged", "--output", run / "b") == 0
    offline, online = json.loads((run / "validate.json").read_text()), json.loads((run / "b" / "validate.json").read_text())
    assert offline["val_loss"] == online["val_loss"] and offline["weights"] == "averaged, exponential"


def test_a_size_that_breaks_the_grid_is_warned_of():
    message = resolution_warning(load_preset("efficientnet-b0-g16-gn-half-16ipu", {"fine_tune_image_size": 230}))
    assert "differ modulo 32" in message and "nearest good sizes: 224 or 256" in message and message.count("\n") == 1
    assert resolution_warning(load_preset("efficientnet-b0-g16-gn-half-16ipu", {})) == ""


def test_a_summary_has_the_papers_columns(capsys):
    assert summary_entry.tell(parse_summary_arguments(["tiny", "digits", "--json"])) == 0
    tiny, digits = json.loads(capsys.readouterr().out)
    assert (tiny["preset"], tiny["image_size"], digits["image_size"]) == ("tiny", 8, 16)
    assert tiny["num_parameters"] == digits["num_parameters"] and 3.5 < digits["macs"] / tiny["macs"] < 4.5  # four times the pixels
    assert digits["activation_elements"] == pytest.approx(4 * tiny["activation_elements"], rel=0.1)
    assert all(
        row["cpu_latency_seconds"] > 0 and row["inference_images_per_second"] > row["training_images_per_second"] > 0
        for row in (tiny, digits)
    )
