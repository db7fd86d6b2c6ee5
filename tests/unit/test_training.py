"""Averages, metrics, checkpoints, records, logs."""

from __future__ import annotations

import os
import pickle
import signal
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from config import AveragingConfig, RunConfig, load_preset, plain_values
from training.averaging import WeightAverage
from training.errors import CheckpointError, TrainingError
from training.metrics import Scores, Window
from training.run.checkpoint import (
    check_same_config,
    find_checkpoint,
    load_checkpoint,
    newest_whole_checkpoint,
    save_checkpoint,
)
from training.run.curves import draw_curves
from training.run.tables import Table
from training.run.wandb_log import WandbLog
from training.stopping import Interrupt


def weights(value):
    return {"w": torch.full((3,), float(value)), "count": torch.tensor(int(value))}


def test_exponential_average_starts_at_the_first_weights():
    average = WeightAverage(AveragingConfig(averaging="exponential", averaging_decay=0.75), epochs=3)
    for epoch, value in enumerate((4, 8, 0), start=1):
        average.update(weights(value), epoch)
    # 4 -> 0.75 * 4 + 0.25 * 8 = 5 -> 0.75 * 5 + 0 = 3.75; counters are taken over, not averaged
    assert average.weights["w"].tolist() == [3.75] * 3
    assert average.weights["count"] == 0


def test_mean_of_the_last_epochs_only():
    average = WeightAverage(AveragingConfig(averaging="mean", averaging_last=2), epochs=4)
    for epoch, value in enumerate((100, 100, 1, 3), start=1):
        average.update(weights(value), epoch)
    assert average.weights["w"].tolist() == [2.0] * 3


def test_an_average_goes_on_from_its_state():
    whole, first = (WeightAverage(AveragingConfig(averaging="mean", averaging_last=3), epochs=3) for _ in range(2))
    for epoch in (1, 2, 3):
        whole.update(weights(epoch), epoch)
    for epoch in (1, 2):
        first.update(weights(epoch), epoch)
    second = WeightAverage(AveragingConfig(averaging="mean", averaging_last=3), epochs=3)
    second.load_state_dict(first.state_dict())
    second.update(weights(3), 3)
    assert torch.equal(second.weights["w"], whole.weights["w"])


def test_half_weights_are_averaged_in_float32():
    average = WeightAverage(AveragingConfig(averaging="exponential", averaging_decay=0.97), epochs=2)
    average.update({"w": torch.tensor([1.0]).half()}, 1)
    average.update({"w": torch.tensor([1.001]).half()}, 2)
    assert average.weights["w"].dtype == torch.float32
    assert 1 < average.weights["w"].item() < 1.001


@settings(max_examples=30, deadline=None)
@given(classes=st.integers(2, 9), count=st.integers(1, 12), seed=st.integers(0, 999))
def test_totals_count_hits_among_the_best_five(classes, count, seed):
    torch.manual_seed(seed)
    logits, labels = torch.randn(count, classes), torch.randint(0, classes, (count,))
    is_real = torch.rand(count) < 0.7
    scores = Scores()
    scores.add_logits(logits, labels, is_real)
    totals = scores.totals()
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)[is_real]  # how many classes beat the label
    assert (totals.images, totals.top1, totals.top5) == (int(is_real.sum()), int((ranks == 0).sum()), int((ranks < 5).sum()))


def test_window_means():
    window = Window()
    window.add(loss_sum=6.0, micro_batches=3, hits=4, images=8, seconds=2.0, data_seconds=0.5)
    assert window.means() == {"loss": 2.0, "accuracy": 50.0, "images_per_second": 4.0, "data_wait": 25.0}


# ---- checkpoints


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.randn(3)}, "position": {"epoch": 2}})
    first = load_checkpoint(path)
    assert first["position"] == {"epoch": 2}
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]  # nothing temporary is left


@pytest.mark.parametrize("kind", ["missing", "empty", "cut", "text", "pickle", "foreign", "version"])
def test_what_is_not_a_whole_checkpoint_is_refused(tmp_path, kind):
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"model": {"w": torch.randn(1000)}})
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "version":
        torch.save({"format": "g16-efficientnet-checkpoint", "version": 99}, path)
    else:
        made = {"empty": b"", "cut": content[: len(content) // 2], "text": b"hello", "pickle": pickle.dumps(os.system)}
        path.write_bytes(made[kind])
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    folder = tmp_path / "run"
    save_checkpoint(folder / "checkpoints" / "best.pt", {"n": 1})
    save_checkpoint(folder / "checkpoints" / "last.pt", {"n": 2})
    os.utime(folder / "checkpoints" / "best.pt", (1, 1))
    assert newest_whole_checkpoint([folder]).path == folder / "checkpoints" / "last.pt"
    (folder / "checkpoints" / "last.pt").write_bytes(b"half written")
    assert newest_whole_checkpoint([folder]).path == folder / "checkpoints" / "best.pt"
    assert newest_whole_checkpoint([tmp_path / "none"]) is None
    assert find_checkpoint(folder) == folder / "checkpoints" / "best.pt"


def test_a_write_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"n": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device.*MiB are free.*previous last.pt is kept"):
        save_checkpoint(path, {"n": 2})
    assert load_checkpoint(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_changed_config_is_refused_unless_the_change_is_named():
    config = load_preset("tiny", {})
    stored = plain_values(config)
    check_same_config(stored, load_preset("tiny", {"output": "elsewhere", "num_workers": 2, "wandb": True}))
    with pytest.raises(CheckpointError, match="epochs was 2, is 5.*--allow-change epochs"):
        check_same_config(stored, load_preset("tiny", {"epochs": 5}))
    check_same_config(stored, load_preset("tiny", {"epochs": 5, "allow_change": ("epochs",)}))
    with pytest.raises(ValueError, match="allow_change names the unknown field 'epoch'; did you mean 'epochs'"):
        check_same_config(stored, load_preset("tiny", {"allow_change": ("epoch",)}))


# ---- files and logs


def test_a_table_is_on_the_disk_after_each_row(tmp_path):
    table = Table(tmp_path / "t.csv", ("a", "b"))
    table.start([{"a": 1, "b": 2}])
    table.add({"a": 3, "b": 4})
    assert (tmp_path / "t.csv").read_text().split() == ["a,b", "1,2", "3,4"]


def test_a_table_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    with pytest.raises(TrainingError, match="nowhere/t.csv"):
        Table(tmp_path / "nowhere" / "t.csv", ("a",)).start()


def test_curves_are_a_picture(tmp_path):
    training = [{"epoch": e, "loss": 1 / e, "accuracy": e, "learning_rate": 0.1} for e in (1, 2)]
    validation = [{"epoch": 1, "weights": kind, "loss": 1.0, "top1": 50.0} for kind in ("current", "averaged")]
    draw_curves(tmp_path / "curves.png", training, validation, "a run")
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def ctrl_c_raises():
    """Python's own handler, also where this process was started in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_sets_a_flag_only(ctrl_c_raises):
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_logger_that_fails_never_stops_a_run(tmp_path, monkeypatch, caplog):
    class Broken:
        @staticmethod
        def init(**_):
            raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "wandb", Broken)
    log = WandbLog(RunConfig(wandb=True), tmp_path)
    log.start({})
    log.log({"loss": 1.0}, 1)
    log.finish()
    assert "the run goes on without it" in caplog.text and "no network" in caplog.text


def test_a_resumed_run_keeps_its_wandb_id(tmp_path, monkeypatch):
    ids = []

    class Recorder:
        @staticmethod
        def init(**settings):
            ids.append((settings["id"], settings["resume"], settings["project"]))

    monkeypatch.setitem(sys.modules, "wandb", Recorder)
    for _ in range(2):
        WandbLog(RunConfig(wandb=True, wandb_project="p"), tmp_path).start({})
    assert ids[0] == ids[1] and ids[0][1:] == ("allow", "p")
