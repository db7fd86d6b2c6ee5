"""The programs of a config on meta tensors, as the cost model sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import torch

import ipu_model
import poptorch
from config import Config, ConfigError
from datasets.factory import training_facts
from ipu_model.cost.settings import Settings
from ipu_model.program.ops import Program
from ipu_model.program.placement import PlacedBlock, Placement
from ipu_options.pipeline import split_candidates

from .programs import build_training_model, build_validation_model


@dataclass(frozen=True)
class Traced:
    """One micro batch of a config's model.

    Attributes:
        cuts: paths within the network at which a stage may begin, in order of execution.
        prefix: what stands before them in the records of the program.
    """

    program: Program
    settings: Settings
    cuts: Tuple[str, ...]
    prefix: str


def trace_training(config: Config) -> Traced:
    """The training model; where its splits are still to be found, as one stage."""
    model = build_training_model(config, training_facts(config.data).num_classes, device="meta")
    images = _images(config.batch.images_per_call, config.data.image_size)
    labels = torch.empty(len(images), dtype=torch.int32, device="meta")
    program, settings = _trace(model.executor, images, labels)
    return Traced(program, settings, tuple(split_candidates(model.network)), "classifier.network.")


def trace_validation(config: Config) -> Traced:
    """The validation model; where its splits are still to be found, as one stage."""
    model = build_validation_model(config, training_facts(config.data).num_classes, device="meta")
    count = config.validation_micro_batch_size * model.options.device_iterations * model.options.replication_factor
    program, settings = _trace(model.executor, _images(count, config.validation_image_size))
    return Traced(program, settings, tuple(split_candidates(model.network)), "network.")


def check_pipeline(config: Config) -> None:
    """ConfigError where a call has too few micro batches for the stages of a config's training, or there are too many IPUs."""
    placement = Placement(tuple(PlacedBlock(f"stage{stage}", stage, stage) for stage in range(config.ipu.stages)))
    try:
        placement.num_ipus(config.batch.replicas, is_rounded=True)
        placement.check_pipeline_depth(config.batch.accumulation_steps, config.batch.device_iterations, is_training=True)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _images(count: int, size: int) -> torch.Tensor:
    return torch.empty(count, 3, size, size, dtype=torch.uint8, device="meta")


def _trace(executor: object, *inputs: torch.Tensor) -> Tuple[Program, Settings]:
    level = poptorch.logger.level
    poptorch.setLogLevel("ERR")  # not of torch.zeros inside forward and the like: nothing runs here
    try:
        return ipu_model.trace(executor, *inputs)
    finally:
        poptorch.logger.setLevel(level)
