"""What the validation of a checkpoint leaves behind: a row in a table, a summary, weights for other programs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Mapping

import torch

from ..errors import TrainingError
from .tables import make_folder, write_summary, writing

RESULT_COLUMNS = ("checkpoint", "weights", "image_size", "top1", "top5", "loss", "images", "images_per_second")


def record_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Append a result to validate.csv of a folder, and write it to validate.json with the names of summary.json."""
    make_folder(folder)
    table = folder / "validate.csv"
    is_new = not table.exists()
    with writing(table, "a") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(RESULT_COLUMNS)
        writer.writerow([result[column] for column in RESULT_COLUMNS])
    named = {f"val_{key}" if key in ("top1", "top5", "loss") else key: value for key, value in result.items()}
    write_summary(folder / "validate.json", named)


def export_weights(path: Path, weights: Mapping[str, torch.Tensor], preset: str) -> None:
    """Write weights by name as a safetensors file; TrainingError where that cannot be done."""
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in weights.items()}
        save_file(tensors, str(path), metadata={"format": "pt", "preset": preset})
    except Exception as error:  # noqa: BLE001  safetensors has an error class of its own for what the operating system refuses
        raise TrainingError(f"cannot write {path}: {error}") from error
