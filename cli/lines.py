"""Lines of results, as programs print them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping

from config import NONE, Config, plain_values


def describe(config: Config, derived: Dict[str, Any]) -> List[str]:
    """A resolved config as YAML lines, section by section, with derived values at the end."""
    values = plain_values(config)
    lines = [f"preset: {values.pop('preset')}"]
    for section, fields in values.items():
        lines += [f"{section}:", *_field_lines(fields, "  ")]
    return [*lines, "derived:", *(f"  {key}: {value}" for key, value in derived.items())]


def _field_lines(fields: Mapping[str, Any], indent: str) -> List[str]:
    lines = []
    for field, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{indent}{field}:", *_field_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{field}: {NONE if value is None else repr(value)}")
    return lines


def derived_values(config: Config, num_images: int, num_classes: int) -> Dict[str, Any]:
    """What follows from a resolved preset and the size of its training set."""
    calls = num_images // config.batch.images_per_call
    return {
        "global_batch_size": config.batch.images_per_update,
        "gradient_accumulation": config.batch.accumulation_steps,
        "images_per_call": config.batch.images_per_call,
        "ipus": config.ipus,
        "training_images": num_images,
        "classes": num_classes,
        "steps_per_epoch": calls * config.batch.device_iterations,
        "steps": calls * config.batch.device_iterations * config.schedule.epochs,
        "learning_rate": config.learning_rate,
        "rmsprop_decay": config.rmsprop_decay if config.optimizer.optimizer == "rmsprop" else "not used",
        "validation_image_size": config.validation_image_size,
        "validation_micro_batch_size": config.validation_micro_batch_size,
        "validation_replicas": config.validation_replicas,
        **_second_phase_values(config, num_images),
    }


def _second_phase_values(config: Config, num_images: int) -> Dict[str, Any]:
    return {
        key: value
        for phase in config.phases[1:]
        for key, value in {
            "fine_tune_gradient_accumulation": phase.batch.accumulation_steps,
            "fine_tune_learning_rate": phase.learning_rate,
            "fine_tune_ipus": phase.ipus,
            "fine_tune_steps": num_images // phase.batch.images_per_call * phase.batch.device_iterations * phase.schedule.epochs,
        }.items()
    }


def training_lines(summary: Mapping[str, Any], folder: Path, exit_code: int) -> List[str]:
    """What train.py prints at the end: accuracy, speed, and where the files are."""
    lines = []
    if exit_code:
        lines.append(f"stopped after {summary['updates']} updates; go on with --output {folder} --resume auto")
    if summary["val_top1"] is not None:
        lines.append(f"validation accuracy  {summary['val_top1']:.2f} % ({summary['weights']} weights)")
    if summary["images_per_second"] is not None:
        lines.append(f"training speed       {summary['images_per_second']:.0f} images/s")
    lines += [f"checkpoint           {summary['checkpoint']}", f"curves and tables    {folder}/curves.png, training.csv, validation.csv"]
    return lines


def validation_lines(result: Mapping[str, Any], folder: Path, export: str) -> List[str]:
    """What validate.py prints."""
    lines = [
        f"checkpoint  {result['checkpoint']} ({result['weights']} weights)",
        f"top-1       {result['top1']:.2f} %",
        f"top-5       {result['top5']:.2f} %",
        f"loss        {result['loss']:.4f}",
        f"images      {int(result['images'])} at {result['image_size']} pixels, {result['images_per_second']:.0f} images/s",
        f"written to  {folder / 'validate.csv'}, {folder / 'validate.json'}",
    ]
    return lines + ([f"weights in  {export}"] if export else [])
