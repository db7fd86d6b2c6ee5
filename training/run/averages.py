"""Averages over the checkpoints that a run has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Tuple

from config import AveragingConfig

from ..averaging import WeightAverage, Weights
from ..errors import CheckpointError
from .checkpoint import load_checkpoint


def average_checkpoints(folder: Path, kind: str) -> Tuple[Dict[str, Any], Weights]:
    """The average of the weights in a run's checkpoints/epoch-*.pt, by the rule of its config: one file is read at a time.

    Args:
        folder: a run's, written with checkpoint_every_epochs.
        kind: "exponential" (`averaging_decay` for each epoch), or "mean" of the last `averaging_last` epochs.

    Returns:
        The payload of the last checkpoint, and the average, the same as that of training when there is a file for each epoch.

    Raises:
        CheckpointError: no such files, or of different models.
    """
    paths = sorted((folder / "checkpoints").glob("epoch-*.pt"))
    if not paths:
        raise CheckpointError(f"{folder} has no checkpoints/epoch-*.pt to average: train with --checkpoint-every-epochs 1")
    last = load_checkpoint(paths[-1], is_mapped=True)
    section = AveragingConfig(**{**last["config"]["averaging"], "averaging": kind})
    average = WeightAverage(section, last["config"]["schedule"]["epochs"])
    shapes = {name: value.shape for name, value in last["model"].items()}
    for path in paths:
        payload = load_checkpoint(path, is_mapped=True)
        if {name: value.shape for name, value in payload["model"].items()} != shapes:
            raise CheckpointError(f"{path} and {paths[-1]} are of different models, which cannot be averaged: remove one of them")
        average.update(payload["model"], payload["position"]["epoch"])
    if average.weights is None:
        first = last["config"]["schedule"]["epochs"] - section.averaging_last + 1
        raise CheckpointError(f"{folder} has no checkpoint of the epochs from {first} on, which --averaged mean takes")
    return last, average.weights
