"""Phases as they will run: everything that can be wrong is found before the first begins, and found once for all instances."""

from __future__ import annotations

import logging

import pytest
import torch

import assembly
import popdist
import train as entry
from assembly.phases import phases_of, prepare_phases
from cli import TrainingArguments
from config import UserError, load_preset, plain_values, with_fields
from ipu_model.cost.hardware import MACHINES
from training.averaging import WeightAverage
from training.run import checkpoint as checkpoints, stored
from training.run.checkpoint import save_checkpoint

TWO_PHASES = dict(
    fine_tune_epochs=1, fine_tune_image_size=16, fine_tune_global_batch_size=18, fine_tune_micro_batch_size=3, fine_tune_replicas=2
)


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"fine_tune_trainable_layers": ("clasifier",)}, "trainable layer 'clasifier' does not exist; did you mean 'classifier'"),
        ({"fine_tune_global_batch_size": 108}, "has 54 images, one call consumes 108"),
        ({"fine_tune_replicas": 5}, "is not a multiple of micro_batch_size 3 x replicas 5 = 15"),
        ({"fine_tune_image_size": 16, "image_size": 64, "architecture": "efficientnet-b0"}, "image size 16 is too small for"),
        ({"fine_tune_micro_batch_size": 2, "fine_tune_global_batch_size": 16}, "micro_batch_size 2 is too small for mixup and cutmix"),
        ({"available_memory_proportion": (0.2, 0.3)}, "takes 1 or 1 values"),
    ],
)
def test_a_mistake_in_the_second_phase_is_found_before_the_first_begins(monkeypatch, fields, fragment):
    begun = []
    monkeypatch.setattr(assembly, "run_phase", lambda *arguments: begun.append(arguments))
    with pytest.raises(UserError, match=fragment):
        entry.tell(TrainingArguments(load_preset("tiny", {**TWO_PHASES, **fields})))
    assert not begun


@pytest.mark.parametrize(
    ("fields", "fragment"), [({"gradient_accumulation": 2}, r"greater than or equal to .*\(3\)"), ({"replicas": 33}, "Too many IPUs")]
)
def test_pipelines_are_checked_without_running(fields, fragment):
    with pytest.raises(UserError, match=fragment):
        prepare_phases(load_preset("tiny", {"generated_images": 2000, **fields}))


def test_every_preset_prepares_both_its_phases():
    """The paper's half-resolution B0: 16 replicas of 2 IPUs at 160 pixels, then 16 of one at 224, on data that is not here."""
    first, second = prepare_phases(load_preset("efficientnet-b0-g16-lnpn-half-16ipu", {}))
    assert (first.data.image_size, first.ipus, second.data.image_size, second.ipus) == (160, 16, 224, 16)


# ---- machines and splits


def test_machines_are_those_of_the_cost_model():
    choices = type(load_preset("tiny", {}).ipu).model_fields["machine"].annotation
    assert set(choices.__args__) == set(MACHINES)


def test_splits_are_sought_for_the_stated_machine(monkeypatch):
    asked = []

    class Machines(dict):
        def __getitem__(self, name):
            asked.append(name)
            return MACHINES[name]

    monkeypatch.setattr("assembly.splits.MACHINES", Machines())
    prepare_phases(load_preset("tiny", {"norm": "none", "proxy_norm": False, "pipeline_splits": ("auto",), "machine": "bow-pod64"}))
    assert asked == ["bow-pod64"]


@pytest.mark.parametrize("instance", [0, 1])
def test_the_first_instance_seeks_splits_and_speaks_for_all(monkeypatch, caplog, instance):
    """Instance 1 gets the splits of instance 0 and neither traces nor speaks."""
    monkeypatch.setattr(popdist, "getInstanceIndex", lambda: instance)
    monkeypatch.setattr("training.instances.share", lambda value: value or ["blocks.4.0"])
    sought = []
    monkeypatch.setattr(
        "assembly.phases.with_best_splits", lambda phase: sought.append(phase) or with_fields(phase, pipeline_splits=("blocks.2.0",))
    )
    with caplog.at_level(logging.INFO):
        (phase,) = prepare_phases(load_preset("tiny", {"pipeline_splits": ("auto",), "automatic_stages": 2}))
    assert phase.ipu.pipeline_splits == (("blocks.2.0",), ("blocks.4.0",))[instance]
    assert (len(sought), caplog.text.count("pipeline_splits: blocks.2.0")) == ((1, 1), (0, 0))[instance]


# ---- checkpoints are read once


@pytest.fixture
def two_checkpoints(tmp_path, monkeypatch):
    """A run whose best checkpoint has another preset and other weights than its last; and the list of files that are read."""
    config = load_preset("tiny", TWO_PHASES)
    for name, preset, value in (("best.pt", "other", 1.0), ("last.pt", "tiny", 2.0)):
        average = WeightAverage(config.averaging, 2)
        average.update({"w": torch.tensor([value])}, 1)
        payload = {"config": {"preset": preset, **plain_values(config)}, "model": {}, "averaging": average.state_dict()}
        save_checkpoint(tmp_path / "run" / "checkpoints" / name, payload)
    read, load = [], checkpoints.load_checkpoint
    for module in (checkpoints, stored):
        monkeypatch.setattr(module, "load_checkpoint", lambda path, *args: read.append(path.name) or load(path, *args))
    return tmp_path / "run", read


def test_fine_tuning_takes_config_and_weights_from_one_reading_of_one_file(monkeypatch, two_checkpoints):
    run, read = two_checkpoints
    begun = []
    monkeypatch.setattr(assembly, "run_phase", lambda phase, source: begun.append((phase, source)) or assembly.Outcome(run, SUMMARY, 0))
    arguments = TrainingArguments(load_preset("digits", {"fine_tune_from": str(run)}), False, False, {"fine_tune_from": str(run)})
    assert entry.tell(arguments) == 0
    ((phase, source),) = begun
    assert read == ["last.pt"]
    assert phase.preset == "tiny" and source.payload["averaging"]["average"]["w"].item() == 2.0


SUMMARY = {"updates": 0, "val_top1": None, "images_per_second": None, "checkpoint": ""}


def test_a_resumed_run_reads_its_checkpoint_once(two_checkpoints):
    run, read = two_checkpoints
    newest = checkpoints.newest_whole_checkpoint([run])
    assert newest is not None and read == ["last.pt"] and newest.payload["config"]["preset"] == "tiny"


# ---- what a schedule reaches


def test_the_rates_that_are_reported_are_those_of_the_calls():
    """exponential, warm-up of 5 epochs, drops every 2.4: the full rate is never reached, neither is the 146th drop."""
    config = load_preset("efficientnet-b0-g16-lnpn-16ipu", {})
    facts, rates = assembly.facts_of(config)
    calls = facts.num_images // 768
    # The first call after the warm-up has seen floor(5 / 2.397) = 2 drops, the last one 145.
    assert rates["highest_learning_rate"] == pytest.approx(768 * 2**-14 * 0.97**2, rel=1e-3)
    assert rates["last_learning_rate"] == pytest.approx(768 * 2**-14 * 0.97**145, rel=1e-9)
    assert calls == 1668 and len(phases_of(config)) == 1
