"""Validate a checkpoint: `python validate.py --checkpoint RUN`. See `python validate.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple, Type

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from cli import ValidationArguments, parse_validation_arguments, run_program, validation_lines


def main() -> int:
    """Read the checkpoint, validate it, write and print the result. Returns the exit code."""
    arguments = parse_validation_arguments()
    return run_program("validate.py", lambda: validate(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def validate(arguments: ValidationArguments) -> int:
    """Validate the checkpoint's weights on the validation images, at one size or several; export them where asked for."""
    from config.presets import config_of_checkpoint, with_fields
    from training import instances
    from training.evaluation import evaluate, export_weights, record_result

    instances.join()
    path, payload, weights, kind = load_weights(arguments)
    config = config_of_checkpoint(payload["config"], {**arguments.overrides, **launched_replicas()})
    folder = Path(arguments.output) if arguments.output else path if path.is_dir() else path.parent.parent

    def evaluate_at(size: int) -> Dict[str, float]:
        return evaluate(*build_validation(with_fields(config, validation_image_size=size), payload, weights))

    if arguments.image_sizes is not None:
        lines = sweep(config, arguments.image_sizes, evaluate_at, folder)
    else:
        size = config.validation_image_size
        result = {"checkpoint": str(path), "weights": kind, "image_size": size, **evaluate_at(size)}
        if instances.is_first():
            record_result(folder, result)
        lines = validation_lines(result, folder, arguments.export)
    if instances.is_first():
        if arguments.export:
            export_weights(Path(arguments.export), weights, config.preset)
        print("\n".join(lines))
    return 0


def load_weights(arguments: ValidationArguments) -> Tuple[Path, Dict[str, Any], Mapping[str, Any], str]:
    """The checkpoint or run folder, the payload, the weights to validate, and what they are; read by the first instance for all."""
    from training import instances
    from training.averaging import average_checkpoints
    from training.checkpoint import find_checkpoint, load_checkpoint

    place = Path(arguments.checkpoint)
    if arguments.averaged:
        payload, weights = instances.share(average_checkpoints(place, arguments.averaged) if instances.is_first() else None)
        return place, payload, weights, f"averaged, {arguments.averaged}"
    path = find_checkpoint(place)
    payload = instances.share(load_checkpoint(path) if instances.is_first() else None)
    return path, payload, *choose_weights(payload, arguments.weights)


def sweep(config: Any, sizes: Sequence[int], evaluate_at: Callable[[int], Dict[str, float]], folder: Path) -> List[str]:
    """Validate at several sizes, or (no sizes) from that of training upwards until accuracy falls; gives the lines to print."""
    from models.architectures import total_stride
    from training import instances
    from training.size_sweep import find_best_size, sweep_sizes, write_sweep

    step = total_stride(config.model.architecture)
    rows = sweep_sizes(sizes, evaluate_at) if sizes else find_best_size(config.data.image_size, step, evaluate_at)
    return write_sweep(folder, rows, f"{config.preset}, {folder.name}") if instances.is_first() else []


def launched_replicas() -> Dict[str, int]:
    """`replicas` as poprun was started for; empty where it was not."""
    import popdist

    return {"replicas": popdist.getNumTotalReplicas()} if popdist.isPopdistEnvSet() else {}


def choose_weights(payload: Mapping[str, Any], wanted: str) -> Tuple[Mapping[str, Any], str]:
    """The averaged weights of a checkpoint where it has them, or those that are asked for.

    Raises:
        CheckpointError: averaged weights are asked for and there are none.
    """
    from training.errors import CheckpointError

    average = payload["averaging"]["average"]
    if wanted == "averaged" and average is None:
        raise CheckpointError("the checkpoint has no averaged weights: its run has averaging none, or ended before the first epoch")
    if average is None or wanted == "current":
        return payload["model"], "current"
    return average, "averaged"


def build_validation(config: Any, payload: Mapping[str, Any], weights: Mapping[str, Any]) -> Tuple[Any, Any]:
    """The inference model with these weights, and its validation images; CheckpointError where the classes differ."""
    import poptorch
    from datasets.factory import build_image_sets
    from datasets.loader import build_validation_loader
    from ipu_options.options import validation_options
    from ipu_options.pipeline import place_on_ipus
    from models.architectures import check_image_size
    from models.task import build_classifier, host_preparation
    from training.errors import CheckpointError

    check_image_size(config.model.architecture, config.validation_image_size)
    sets = build_image_sets(config.data, config.run.seed, config.validation_image_size)
    if sets.training.classes != payload["classes"]:
        raise CheckpointError(
            f"the checkpoint knows {len(payload['classes'])} classes, data set {config.data.dataset!r} has other ones ({sets.num_classes})"
        )
    classifier = build_classifier(config.model, sets.num_classes, config.precision).eval()
    classifier.network.load_state_dict(weights)
    place_on_ipus(classifier, classifier.network, config.ipu.pipeline_splits)
    is_synthetic = config.data.dataset == "synthetic"
    options = validation_options(config.batch, config.ipu, config.precision, config.run.seed, is_synthetic)
    prepare = host_preparation(config.data.eight_bit_io, config.precision)
    size = config.validation_micro_batch_size
    batches = build_validation_loader(sets.validation, options, size, config.data.num_workers, prepare)
    return poptorch.inferenceModel(classifier, options), batches


if __name__ == "__main__":
    sys.exit(main())
