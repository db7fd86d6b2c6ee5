"""train.py and validate.py under poprun: the same numbers for every number of instances, faults, interruptions."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import ROOT, command, environment, poprun

TRAIN = [sys.executable, "train.py", "--config", "tiny", "--precision", "32.32", "--log-every-steps", "1"]
GROUP_NORM = ["--norm", "group", "--no-proxy-norm"]  # which is compiled sooner


def rows(folder, name="training.csv"):
    with open(folder / name, newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("images_per_second", "data_wait")} for row in csv.DictReader(file)]


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]


@pytest.mark.slow
def test_training_and_validation_are_the_same_for_every_number_of_instances(tmp_path):
    """Batch norm, two updates in a call: four replicas in one process, in two, in four; then resumed with another number."""
    settings = ["--norm", "batch", "--no-proxy-norm", "--device-iterations", "2", "--generated-images", "150", "--replicas", "4"]
    train = [*TRAIN, *settings, "--output"]
    flags = ["--num-replicas=4", "--ipus-per-replica=2"]
    subprocess.run([*train, str(tmp_path / "1")], cwd=ROOT, env=environment(), check=True, capture_output=True)
    for instances in (2, 4):
        done = poprun(f"--num-instances={instances}", *flags, *train, str(tmp_path / str(instances)))
        assert done.returncode == 0, done.stderr
    for instances in ("2", "4"):
        for name in ("training.csv", "validation.csv"):
            assert rows(tmp_path / instances, name) == rows(tmp_path / "1", name)
        assert all(torch.equal(a, b) for a, b in zip(weights(tmp_path / instances).values(), weights(tmp_path / "1").values()))
    for launcher in ([], command("--num-instances=2", *flags)):
        validate = [*launcher, sys.executable, "validate.py", "--checkpoint", str(tmp_path / "1")]
        subprocess.run(validate, cwd=ROOT, env=environment(), check=True, capture_output=True)
    first, second = rows(tmp_path / "1", "validate.csv")
    assert first == second


@pytest.mark.slow
def test_a_killed_instance_ends_the_run_which_goes_on_with_other_instances_and_by_itself(tmp_path):
    train = [*TRAIN, *GROUP_NORM, "--generated-images", "108", "--epochs", "2", "--output"]
    flags = ["--num-instances=2", "--num-replicas=2", "--ipus-per-replica=2"]
    subprocess.run([*train, str(tmp_path / "whole")], cwd=ROOT, env=environment(), check=True, capture_output=True)
    expected = rows(tmp_path / "whole")

    code, seconds, errors = killed_after(7, tmp_path / "killed", flags, train)
    assert (code, seconds < 10) == (137, True)
    assert "poprun: instance 1 on localhost was killed by SIGKILL" in errors
    resumed = [*train, str(tmp_path / "killed"), "--resume", "auto"]
    subprocess.run(resumed, cwd=ROOT, env=environment(), check=True, capture_output=True)  # one instance with both replicas
    assert rows(tmp_path / "killed") == expected

    code, _, errors = killed_after(7, tmp_path / "restarted", [*flags, "--max-restarts=1"], train)
    assert code == 0 and "was killed by SIGKILL; all instances start again (restart 1 of 1)" in errors
    assert rows(tmp_path / "restarted") == expected


def killed_after(num_rows, folder, flags, train):
    """Start, kill instance 1 when training.csv has so many rows; exit code, seconds from then on, standard error."""
    run = subprocess.Popen(
        command(*flags, *train, str(folder)), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    table = folder / "training.csv"
    deadline = time.monotonic() + 120
    while not table.is_file() or table.read_text().count("\n") <= num_rows:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process_of_instance(1, folder), signal.SIGKILL)
    start = time.monotonic()
    errors = run.communicate(timeout=120)[1]
    return run.returncode, time.monotonic() - start, errors


def process_of_instance(instance, folder):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (path / "cmdline").read_bytes().split(b"\0")
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_program = arguments[1:2] == [b"train.py"] and str(folder).encode() in arguments
        if is_program and f"OMPI_COMM_WORLD_RANK={instance}".encode() in variables:
            return int(path.name)
    raise AssertionError("no such instance")


@pytest.mark.slow
def test_an_interruption_stops_all_instances_with_a_checkpoint(tmp_path):
    train = [*TRAIN, *GROUP_NORM, "--epochs", "50", "--output", str(tmp_path / "run")]
    run = subprocess.Popen(
        command("--num-instances=2", "--num-replicas=2", "--ipus-per-replica=2", *train),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    table = tmp_path / "run" / "training.csv"
    deadline = time.monotonic() + 120
    while not table.is_file() or table.read_text().count("\n") < 3:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "go on with" in output and "poprun: all instances have stopped" in errors
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
