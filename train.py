"""Train a preset: `python train.py --config digits`. See `python train.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Type

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from cli import TrainingArguments, derived_values, describe, parse_training_arguments, run_program, training_lines
from config import AUTOMATIC_SPLITS, Config


def main() -> int:
    """Resolve the preset; show it, or train it. Returns the exit code."""
    arguments = parse_training_arguments()
    return run_program("train.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: TrainingArguments) -> int:
    """Show the config or train it. Returns the exit code."""
    config = starting_config(arguments)
    return show(config) if arguments.is_dry_run else train(config)


def starting_config(arguments: TrainingArguments) -> Config:
    """The preset's config; for fine-tuning alone, without --config, that of the checkpoint with what the command line states."""
    if not arguments.config.run.fine_tune_from or arguments.is_preset_given:
        return arguments.config
    from config.presets import config_of_checkpoint
    from training.checkpoint import find_checkpoint, load_checkpoint

    return config_of_checkpoint(load_checkpoint(find_checkpoint(Path(arguments.config.run.fine_tune_from)))["config"], arguments.overrides)


def show(config: Config) -> int:
    """Print the resolved preset and what follows from it."""
    from datasets.factory import training_size
    from models.architectures import check_image_size

    check_image_size(config.model.architecture, min(config.data.image_size, config.validation_image_size))
    num_images, num_classes, is_counted = training_size(config.data, config.run.seed)
    print("\n".join(describe(config, derived_values(config, num_images, num_classes))))
    if not is_counted:
        print(
            f"note: no {config.data.dataset} in {config.data.data_path or 'an empty --data-path'}; training_images is the published number"
        )
    warn_of_resolution(config)
    return 0


def train(config: Config) -> int:
    """Train, then fine-tune where the config has it; or fine-tune alone. Returns the exit code."""
    from training import instances
    from training.checkpoint import LAST

    instances.join()
    warn_of_resolution(config)
    if config.run.fine_tune_from:
        return fine_tune(config, Path(config.run.fine_tune_from))
    folder, exit_code = run_phase(with_found_splits(with_launched_replicas(config)))
    if exit_code or not config.fine_tune.fine_tune_epochs:
        return exit_code
    return fine_tune(config, folder / "checkpoints" / LAST, folder / "fine-tune")


def run_phase(config: Config, weights: Optional[Mapping[str, Any]] = None) -> Tuple[Path, int]:
    """Build everything, train from these weights or from new ones, print where the results are; the run's folder, and the exit code."""
    from datasets.factory import build_image_sets
    from training import instances
    from training.session import open_run, seed_everything
    from training.trainer import Trainer

    sets = build_image_sets(config.data, config.run.seed, config.validation_image_size)
    seed_everything(config.run.seed)
    parts = build_parts(config, sets)
    if weights is not None:
        parts.network.load_state_dict(weights)
    instances.share_weights(parts.network)
    folder, checkpoint = open_run(config)
    trainer = Trainer(config, parts, folder)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    summary, exit_code = trainer.run()
    if instances.is_first():
        print("\n".join(training_lines(summary, folder, exit_code)))
    return folder, exit_code


def fine_tune(config: Config, source: Path, output: Optional[Path] = None) -> int:
    """Train the last layers on from a checkpoint's averaged weights (its current ones, where it has no others). Returns the exit code.

    `output` is the folder of this phase, which is resumed where it was begun; None leaves both to the config.
    """
    import popdist
    from config.fine_tuning import fine_tuning
    from config.presets import with_fields
    from training.session import starting_weights

    phase = fine_tuning(config)
    if popdist.isPopdistEnvSet():  # whose partition of IPUs stays what it is
        phase = with_launched_replicas(with_fields(phase, pipeline_splits=config.ipu.pipeline_splits))
    if output is not None:
        phase = with_fields(phase, output=str(output), resume="auto" if (output / "checkpoints").is_dir() else "")
    weights = starting_weights(source, config)
    if popdist.getInstanceIndex() == 0:
        layers = " ".join(phase.model.trainable_layers)
        print(f"fine-tuning {phase.schedule.epochs} epochs at {phase.data.image_size} pixels: {layers}")
    return run_phase(phase, weights)[1]


def warn_of_resolution(config: Config) -> None:
    """Say where padding falls elsewhere at the fine-tuning size than in training, and which sizes avoid that."""
    import popdist
    from config.fine_tuning import nearest_good_sizes
    from models.architectures import total_stride

    size, before = config.fine_tune.fine_tune_image_size, config.data.image_size
    period = total_stride(config.model.architecture)
    if config.fine_tune.fine_tune_epochs and (size - before) % period and popdist.getInstanceIndex() == 0:
        good = " or ".join(map(str, nearest_good_sizes(before, size, period)))
        sys.stderr.write(
            f"train.py: warning: fine_tune_image_size {size} and image_size {before} differ modulo {period}, the network's stride, so that "
            f"padding falls elsewhere than in training; nearest good sizes: {good}\n"
        )


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
    from models.architectures import check_image_size
    from models.norm import norm_parameter_names
    from models.task import build_classifier, build_training_task, host_preparation
    from training.optimizers import build_optimizer
    from training.trainer import Parts

    check_image_size(config.model.architecture, min(config.data.image_size, config.validation_image_size))
    classifier = build_classifier(config.model, sets.num_classes, config.precision)
    validation_classifier = copy.deepcopy(classifier).eval()
    task = build_training_task(classifier, config.model, config.augmentation)
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
