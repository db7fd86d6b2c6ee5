"""`benchmarks.identical_losses`: every kind of difference is told, and equal trees are equal."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.identical_losses import differences

ROOT = Path(__file__).parent.parent.parent


def write_run(folder, losses=("2.5", "2.25"), weights=None):
    (folder / "checkpoints").mkdir(parents=True)
    for name, values in (("training.csv", losses), ("validation.csv", losses[-1:])):
        with open(folder / name, "w", newline="") as file:
            table = csv.DictWriter(file, ["update", "loss", "images_per_second"])
            table.writeheader()
            table.writerows({"update": n, "loss": loss, "images_per_second": hash((folder, n))} for n, loss in enumerate(values))
    torch.save({"model": weights or {"a": torch.zeros(3), "b": torch.tensor(math.nan)}}, folder / "checkpoints" / "last.pt")
    return folder


@pytest.fixture
def before(tmp_path):
    return write_run(tmp_path / "before")


def test_equal_runs_are_equal_whatever_their_speed(before, tmp_path):
    assert differences(before, write_run(tmp_path / "after")) == []


def test_the_last_digit_of_a_loss_counts(before, tmp_path):
    found = differences(before, write_run(tmp_path / "after", losses=("2.5", "2.2500000000000004")))
    assert found == ["training.csv, row 2: loss 2.25 -> 2.2500000000000004", "validation.csv, row 1: loss 2.25 -> 2.2500000000000004"]


def test_a_missing_row_counts(before, tmp_path):
    assert "training.csv: 2 rows before, 1 after" in differences(before, write_run(tmp_path / "after", losses=("2.5",)))


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"a": torch.tensor([0.0, -0.0, 0.0]), "b": torch.tensor(math.nan)}, "1 of 2 weights differ, the first: a"),
        ({"a": torch.zeros(3).half(), "b": torch.tensor(math.nan)}, "1 of 2 weights differ, the first: a"),
        ({"a": torch.zeros(3), "b": torch.tensor(math.nan), "c": torch.zeros(1)}, "weights of other names: c"),
    ],
)
def test_every_bit_of_the_weights_counts(before, tmp_path, weights, line):
    assert differences(before, write_run(tmp_path / "after", weights=weights)) == [line]


@pytest.mark.slow
def test_the_command_compares_the_tree_with_a_revision():
    """With the tree's own revision: the same code, or a change that has not been committed yet and must not change numbers."""
    flags = ["--epochs", "1", "--generated-images", "18"]
    command = [sys.executable, "-m", "benchmarks.identical_losses", "--revision", "HEAD", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("identical to HEAD")
