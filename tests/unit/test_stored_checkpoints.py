"""A checkpoint as it was written before there were phases, a validation section and a machine: tests/data has its structure.

It is that of `train.py --config tiny --epochs 1 --averaging-decay 0.5 --fine-tune-epochs 1 ...`, format version 1, each tensor as its type
and shape (and its value, where it is one number); the test draws the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import assembly
from assembly.programs import build_training_program, build_validation_program
from assembly.runs import build_trainer
from config.presets import config_of_checkpoint
from datasets.factory import build_image_sets
from training.run import Run
from training.run.checkpoint import check_same_config, load_checkpoint, save_checkpoint
from training.run.stored import starting_weights

STRUCTURE = Path(__file__).parent.parent / "data" / "checkpoint_version_1.json"


def drawn(value, generator):
    """The structure with tensors in it."""
    if isinstance(value, list):
        return [drawn(item, generator) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" not in value:
        return {key: drawn(item, generator) for key, item in value.items()}
    kind, *shape = value["tensor"]
    made = torch.rand(shape, generator=generator) if shape else torch.tensor(value["value"])
    return made.to(getattr(torch, kind))


@pytest.fixture
def old_run(tmp_path, generator):
    """A run folder with that checkpoint as its end."""
    payload = drawn(json.loads(STRUCTURE.read_text(encoding="utf-8")), generator)
    save_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt", payload)
    return tmp_path / "run"


def test_a_run_goes_on_from_an_old_checkpoint(old_run):
    payload = load_checkpoint(old_run / "checkpoints" / "last.pt")
    config = config_of_checkpoint(payload["config"], {"epochs": 2, "allow_change": ("epochs",)})
    check_same_config(payload["config"], config)
    sets = build_image_sets(config.data, config.run.seed, config.validation_image_size)
    program = build_training_program(config, sets.training)
    trainer = build_trainer(config, program, build_validation_program(config, sets.validation), Run(config, old_run))
    trainer.restore(payload)
    weights = program.network.state_dict()
    assert set(weights) == set(payload["model"])
    assert all(torch.equal(weights[name], payload["model"][name]) for name in weights)
    state = program.optimizer.state_dict()["ipu_state"]
    assert state and all(torch.equal(state[name], payload["optimizer"]["ipu_state"][name]) for name in state)


def test_an_old_checkpoint_is_validated_and_fine_tuned(old_run):
    stored = assembly.load_weights(old_run)
    assert stored.kind == "averaged"
    config = assembly.config_of(stored, {})
    assert (config.preset, config.data.image_size, config.ipu.machine) == ("tiny", 8, "pod16")
    source = assembly.read_end(old_run)
    second = assembly.phases_of(config)[-1]
    assert (second.data.image_size, second.schedule.epochs, second.model.trainable_layers) == (16, 1, ("conv_head", "bn2", "classifier"))
    weights, average = starting_weights(source, second), source.payload["averaging"]["average"]
    assert all(torch.equal(weights[name], average[name]) for name in average)
