"""From a config to the models that run, and the images that they are fed: the one place where all rooms meet.

On the device "meta" the same models have shapes and no numbers, so that they can be checked and traced at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import poptorch
from config import Config
from datasets.images import ImageSet
from datasets.loader import build_training_loader, build_validation_loader
from ipu_options.options import training_options, validation_options
from ipu_options.pipeline import place_on_ipus
from models.architectures import check_image_size
from models.norm import norm_parameter_names
from models.task import Classifier, build_classifier, build_training_task, host_preparation
from training.optimizers import build_optimizer
from training.parts import InferenceExecutor, Optimizer, TrainingExecutor, TrainingProgram, ValidationProgram


@dataclass(frozen=True)
class TrainingModel:
    """A wrapped task that is not compiled yet."""

    executor: TrainingExecutor
    options: poptorch.Options
    network: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True)
class ValidationModel:
    """A wrapped classifier that is not compiled yet."""

    executor: InferenceExecutor
    options: poptorch.Options
    network: nn.Module


def build_training_model(config: Config, num_classes: int, device: str = "cpu") -> TrainingModel:
    """Classifier, task, stages, options and optimizer of a config's training, wrapped.

    Raises:
        ValueError: what the config states does not fit the network: image size, layers, splits, proportions, replicas of a launch.
    """
    check_image_size(config.model.architecture, config.data.image_size)
    classifier = _classifier(config, num_classes, device)
    task = build_training_task(classifier, config.model, config.augmentation)
    place_on_ipus(task, classifier.network, config.ipu.pipeline_splits)
    options = training_options(config.batch, config.ipu, config.precision, config.optimizer, config.run.seed, _is_synthetic(config))
    optimizer = build_optimizer(config, task, norm_parameter_names(task))
    return TrainingModel(poptorch.trainingModel(task, options, optimizer), options, classifier.network, optimizer)


def build_validation_model(config: Config, num_classes: int, device: str = "cpu") -> ValidationModel:
    """Classifier in evaluation mode, stages and options of a config's validation, wrapped; ValueError as in training."""
    check_image_size(config.model.architecture, config.validation_image_size)
    classifier = _classifier(config, num_classes, device).eval()
    place_on_ipus(classifier, classifier.network, config.ipu.pipeline_splits)
    options = validation_options(
        config.batch, config.validation_replicas, config.ipu, config.precision, config.run.seed, _is_synthetic(config)
    )
    return ValidationModel(poptorch.inferenceModel(classifier, options), options, classifier.network)


def build_training_program(config: Config, images: ImageSet) -> TrainingProgram:
    """The training model and its batches; DataError where there are fewer images than one call takes."""
    model = build_training_model(config, len(images.classes))
    prepare = host_preparation(config.data.eight_bit_io, config.model, config.precision)
    size, workers = config.batch.micro_batch_size, config.data.num_workers
    batches, order = build_training_loader(images, model.options, size, config.run.seed, workers, prepare)
    return TrainingProgram(model.executor, model.network, model.optimizer, batches, order)


def build_validation_program(config: Config, images: ImageSet) -> ValidationProgram:
    """The validation model, with weights of its own, and every image once."""
    model = build_validation_model(config, len(images.classes))
    prepare = host_preparation(config.data.eight_bit_io, config.model, config.precision)
    batches = build_validation_loader(images, model.options, config.validation_micro_batch_size, config.data.num_workers, prepare)
    return ValidationProgram(model.executor, model.network, batches)


def _classifier(config: Config, num_classes: int, device: str) -> Classifier:
    with torch.device(device):
        return build_classifier(config.model, num_classes, config.precision)


def _is_synthetic(config: Config) -> bool:
    return config.data.dataset == "synthetic"
