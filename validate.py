"""Validate a checkpoint: `python validate.py --checkpoint RUN`. See `python validate.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from config.command_line import ValidationArguments, parse_validation_arguments


def main() -> int:
    """Read the checkpoint, validate it, write and print the result. Returns the exit code."""
    arguments = parse_validation_arguments()
    from training.session import user_errors

    with user_errors("validate.py"):
        return validate(arguments)
    return 1


def validate(arguments: ValidationArguments) -> int:
    """Validate the checkpoint's weights on the validation images; export them where asked for."""
    from config.presets import build_config
    from training import instances
    from training.checkpoint import find_checkpoint, load_checkpoint
    from training.evaluation import evaluate, export_weights, record_result
    from training.session import validation_lines

    instances.join()
    path = find_checkpoint(Path(arguments.checkpoint))
    payload = instances.share(load_checkpoint(path) if instances.is_first() else None)
    stored = {**payload["config"]}
    config = build_config(stored.pop("preset"), _overridden(stored, {**arguments.overrides, **launched_replicas()}))
    weights, kind = choose_weights(payload, arguments.weights)
    model, batches = build_validation(config, payload, weights)
    result = {"checkpoint": str(path), "weights": kind, "image_size": config.validation_image_size, **evaluate(model, batches)}
    if not instances.is_first():
        return 0
    folder = Path(arguments.output) if arguments.output else path.parent.parent
    record_result(folder, result)
    if arguments.export:
        export_weights(Path(arguments.export), weights, config.preset)
    print("\n".join(validation_lines(result, folder, arguments.export)))
    return 0


def launched_replicas() -> Dict[str, int]:
    """`replicas` as poprun was started for; empty where it was not."""
    import popdist

    return {"replicas": popdist.getNumTotalReplicas()} if popdist.isPopdistEnvSet() else {}


def _overridden(sections: Mapping[str, Any], overrides: Mapping[str, Any]) -> Dict[str, Any]:
    from config import SECTION_OF_FIELD

    merged = {name: dict(fields) for name, fields in sections.items()}
    for field, value in overrides.items():
        merged[SECTION_OF_FIELD[field]][field] = value
    return merged


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
    from models.task import build_classifier, host_preparation
    from training.errors import CheckpointError

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
