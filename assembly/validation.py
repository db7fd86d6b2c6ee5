"""Scores of stored weights on the validation images of their data set."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

import popdist
from config import Config, config_of_checkpoint, with_fields
from datasets.factory import build_validation_set
from models.architectures import total_stride
from training.run.size_sweep import Row, find_best_size, sweep_sizes
from training.run.stored import StoredWeights
from training.validation import Validator

from .programs import build_validation_program


def config_of(stored: StoredWeights, overrides: Mapping[str, Any]) -> Config:
    """The config of a checkpoint with other values by field name, and with as many replicas as poprun was started for."""
    launched = {"validation_replicas": popdist.getNumTotalReplicas()} if popdist.isPopdistEnvSet() else {}
    return config_of_checkpoint(stored.payload["config"], {**overrides, **launched})


def validate(config: Config, stored: StoredWeights) -> Dict[str, float]:
    """Scores at the config's validation size. No training images are needed: the checkpoint knows the classes.

    Raises:
        UserError, poptorch.Error: the data is not there or of other classes, or the model cannot be built.
    """
    images = build_validation_set(config.data, config.run.seed, config.validation_image_size, stored.payload["classes"])
    return Validator(build_validation_program(config, images))({stored.kind: stored.weights})[stored.kind]


def validate_sizes(config: Config, stored: StoredWeights, sizes: Sequence[int]) -> List[Row]:
    """A row for each size, or (no sizes) for those from that of training upwards until accuracy falls."""

    def validate_at(size: int) -> Dict[str, float]:
        return validate(with_fields(config, validation_image_size=size), stored)

    if sizes:
        return sweep_sizes(sizes, validate_at)
    return find_best_size(config.data.image_size, total_stride(config.model.architecture), validate_at)
