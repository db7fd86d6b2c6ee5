"""Train a preset: `python train.py --config digits`. See `python train.py --help`."""

from __future__ import annotations

import sys
from typing import Any, Dict

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from config import AUTOMATIC_SPLITS, Config
from config.command_line import describe, parse_training_arguments


def main() -> int:
    """Resolve the preset; show it, or train it. Returns the exit code."""
    config, is_dry_run = parse_training_arguments()
    from training.session import user_errors

    with user_errors("train.py"):
        return show(config) if is_dry_run else train(config)
    return 1


def show(config: Config) -> int:
    """Print the resolved preset and what follows from it."""
    from datasets.factory import training_size
    from training.session import derived_values

    num_images, num_classes, is_counted = training_size(config.data, config.run.seed)
    print("\n".join(describe(config, derived_values(config, num_images, num_classes))))
    if not is_counted:
        print(
            f"note: no {config.data.dataset} in {config.data.data_path or 'an empty --data-path'}; training_images is the published number"
        )
    return 0


def train(config: Config) -> int:
    """Build everything, train, and print where the results are."""
    from datasets.factory import build_image_sets
    from training import instances
    from training.session import open_run, print_result, seed_everything
    from training.trainer import Trainer

    instances.join()
    config = with_found_splits(with_launched_replicas(config))
    sets = build_image_sets(config.data, config.run.seed, config.validation_image_size)
    seed_everything(config.run.seed)
    parts = build_parts(config, sets)
    instances.share_weights(parts.network)
    folder, checkpoint = open_run(config)
    trainer = Trainer(config, parts, folder)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    summary, exit_code = trainer.run()
    if instances.is_first():
        print_result(summary, folder, exit_code)
    return exit_code


def with_launched_replicas(config: Config) -> Config:
    """The config with as many replicas as poprun was started for."""
    import popdist
    from config.presets import with_fields

    if not popdist.isPopdistEnvSet() or popdist.getNumTotalReplicas() == config.batch.replicas:
        return config
    if popdist.getInstanceIndex() == 0:
        print(f"replicas: {popdist.getNumTotalReplicas()}, as poprun says (the preset has {config.batch.replicas})")
    return with_fields(config, replicas=popdist.getNumTotalReplicas())


def with_found_splits(config: Config) -> Config:
    """The config with the best splits in the place of `--pipeline-splits auto`: one stage for each IPU of a replica."""
    if config.ipu.pipeline_splits != AUTOMATIC_SPLITS:
        return config
    from estimate import find_splits

    splits = find_splits(config, config.ipu.automatic_stages)
    print(f"pipeline_splits: {' '.join(splits)}")
    return config.with_splits(splits)


def build_parts(config: Config, sets: Any) -> Any:
    """The training and validation models with their options, optimizer and loaders."""
    import copy

    import poptorch
    from datasets.loader import build_training_loader, build_validation_loader
    from ipu_options.options import training_options, validation_options
    from ipu_options.pipeline import place_on_ipus
    from models.norm import norm_parameter_names
    from models.task import TrainingTask, build_classifier, host_preparation
    from training.optimizers import build_optimizer
    from training.trainer import Parts

    classifier = build_classifier(config.model, sets.num_classes, config.precision)
    validation_classifier = copy.deepcopy(classifier).eval()
    task = TrainingTask(classifier, config.augmentation).train()
    place_on_ipus(task, classifier.network, config.ipu.pipeline_splits)
    place_on_ipus(validation_classifier, validation_classifier.network, config.ipu.pipeline_splits)

    shared: Dict[str, Any] = dict(seed=config.run.seed, is_synthetic=config.data.dataset == "synthetic")
    options = training_options(config.batch, config.ipu, config.precision, config.optimizer, **shared)
    options_in_validation = validation_options(config.batch, config.ipu, config.precision, **shared)
    optimizer = build_optimizer(config, task, norm_parameter_names(task))
    prepare = host_preparation(config.data.eight_bit_io, config.precision)
    workers = config.data.num_workers
    loader, order = build_training_loader(sets.training, options, config.batch.micro_batch_size, config.run.seed, workers, prepare)
    validation_loader = build_validation_loader(
        sets.validation, options_in_validation, config.validation_micro_batch_size, workers, prepare
    )
    return Parts(
        training_model=poptorch.trainingModel(task, options, optimizer),
        network=classifier.network,
        optimizer=optimizer,
        training_loader=loader,
        order=order,
        validation_model=poptorch.inferenceModel(validation_classifier, options_in_validation),
        validation_network=validation_classifier.network,
        validation_loader=validation_loader,
    )


if __name__ == "__main__":
    sys.exit(main())
