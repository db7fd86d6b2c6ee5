"""The phases of a config's training, each built without numbers before the first begins, so that no mistake waits for its turn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Dict, Tuple

import popdist
from config import Config, ConfigError, second_phase, with_fields
from datasets.factory import TrainingFacts, training_facts
from models.architectures import nearest_good_sizes, total_stride
from training import instances
from training.schedule import Rates

from .programs import build_training_model, build_validation_model
from .splits import are_automatic, with_best_splits
from .tracing import check_pipeline

logger = logging.getLogger(__name__)


def prepare_phases(config: Config) -> Tuple[Config, ...]:
    """What is trained one after the other, as it will run: with the replicas that were launched and the splits that were found.

    Every instance gets the same.

    Raises:
        UserError, poptorch.Error: some phase cannot be built, be it the last.
    """
    phases = tuple(_as_launched(phase, config) for phase in phases_of(config))
    phases = tuple(_with_found_splits(phase) for phase in phases)
    for phase in phases:
        check(phase)
    return phases


def phases_of(config: Config) -> Tuple[Config, ...]:
    """A config's training, and its fine-tuning where it has one; the fine-tuning alone where it begins from a checkpoint."""
    return (second_phase(config),) if config.run.fine_tune_from else config.phases


def check(config: Config) -> None:
    """Build a phase's models without numbers, and compare its batch with its images and its stages.

    Raises:
        UserError, poptorch.Error: as when it runs.
    """
    facts = training_facts(config.data)
    if facts.num_images < config.batch.images_per_call:
        raise ConfigError(
            f"the training set has {facts.num_images} images, one call consumes {config.batch.images_per_call}: lower micro_batch_size, "
            "gradient_accumulation, replicas or device_iterations"
        )
    check_pipeline(config)
    build_training_model(config, facts.num_classes, "meta")
    build_validation_model(config, facts.num_classes, "meta")


def following(phase: Config, folder: Path) -> Config:
    """The phase in a folder below that of the phase before it, gone on with where it has begun."""
    below = folder / "fine-tune"
    return with_fields(phase, output=str(below), resume="auto" if (below / "checkpoints").is_dir() else None)


def facts_of(config: Config) -> Tuple[TrainingFacts, Dict[str, float]]:
    """What is known of a config's training set, and the highest and the last learning rate of its calls."""
    facts = training_facts(config.data)
    rates = Rates(config.schedule, config.optimizer, config.learning_rate)
    highest, last = rates.extremes(facts.num_images // config.batch.images_per_call)
    return facts, {"highest_learning_rate": highest, "last_learning_rate": last}


def resolution_warning(config: Config) -> str:
    """A line where padding falls elsewhere at the fine-tuning size than in training, with the sizes that avoid that; or nothing."""
    size, before = config.phases[-1].data.image_size, config.data.image_size
    period = total_stride(config.model.architecture)
    if not (size - before) % period:
        return ""
    good = " or ".join(map(str, nearest_good_sizes(before, size, period)))
    return (
        f"train.py: warning: fine_tune_image_size {size} and image_size {before} differ modulo {period}, the network's stride, so that "
        f"padding falls elsewhere than in training; nearest good sizes: {good}\n"
    )


def _as_launched(phase: Config, whole: Config) -> Config:
    """The phase with as many replicas as poprun was started for, on IPUs partitioned as for the whole."""
    if not popdist.isPopdistEnvSet():
        return phase
    replicas = popdist.getNumTotalReplicas()
    if phase.ipu.pipeline_splits != whole.ipu.pipeline_splits:
        phase = with_fields(phase, pipeline_splits=whole.ipu.pipeline_splits)
    if replicas == phase.batch.replicas == phase.validation_replicas:
        return phase
    if instances.is_first():
        logger.info("replicas: %d, as poprun says (the preset has %d)", replicas, phase.batch.replicas)
    return with_fields(phase, replicas=replicas, validation_replicas=None)


def _with_found_splits(phase: Config) -> Config:
    """The phase with the best splits in the place of `auto`, found and said by the first instance."""
    if not are_automatic(phase):
        return phase
    splits = list(with_best_splits(phase).ipu.pipeline_splits) if instances.is_first() else []
    splits = instances.share(splits)
    if instances.is_first():
        logger.info("pipeline_splits: %s", " ".join(splits))
    return with_fields(phase, pipeline_splits=splits)
