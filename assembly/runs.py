"""One phase, from its config to its summary: programs, trainer, folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from config import Config
from datasets.factory import build_image_sets
from training import instances
from training.averaging import WeightAverage
from training.parts import TrainingProgram, ValidationProgram
from training.run import Run
from training.run.checkpoint import Checkpoint
from training.run.folder import open_run
from training.run.stored import starting_weights
from training.schedule import Rates
from training.seeding import seed_everything
from training.step import Step
from training.stopping import Interrupt, StopVote
from training.trainer import Trainer
from training.validation import Validator

from .programs import build_training_program, build_validation_program


class Outcome(NamedTuple):
    """How a phase ended: its folder, its summary, and 0 or 128 + the signal that stopped it."""

    folder: Path
    summary: Dict[str, Any]
    exit_code: int


def run_phase(config: Config, source: Optional[Checkpoint] = None) -> Outcome:
    """Train from a checkpoint's averaged weights, or from new ones, or from where the run was left off.

    Raises:
        UserError, poptorch.Error: the data is not there, the folder holds another run, a file cannot be written.
    """
    sets = build_image_sets(config.data, config.run.seed, config.validation_image_size)
    seed_everything(config.run.seed)
    program = build_training_program(config, sets.training)
    if source is not None:
        program.network.load_state_dict(starting_weights(source, config))
    instances.share_weights(program.network)
    folder, checkpoint = open_run(config)
    trainer = build_trainer(config, program, build_validation_program(config, sets.validation), Run(config, folder))
    if checkpoint is not None:
        trainer.restore(checkpoint)
    summary, exit_code = trainer.train()
    return Outcome(folder, summary, exit_code)


def build_trainer(config: Config, training: TrainingProgram, validation: ValidationProgram, run: Run) -> Trainer:
    """The trainer of two programs."""
    step = Step(training, config.batch, Rates(config.schedule, config.optimizer, config.learning_rate))
    average = WeightAverage(config.averaging, config.schedule.epochs)
    return Trainer(training, step, StopVote(Interrupt()), Validator(validation), average, run)
