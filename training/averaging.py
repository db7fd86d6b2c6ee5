"""Averages of the weights over the ends of epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import torch

from config import AveragingConfig

from .checkpoint import load_checkpoint
from .errors import CheckpointError

Weights = Dict[str, torch.Tensor]


class WeightAverage:
    """Exponential average V <- decay V + (1 - decay) W, starting at the first W, or mean of the last epochs; kept in float32."""

    def __init__(self, config: AveragingConfig, epochs: int) -> None:
        self._config = config
        self._first_epoch = epochs - config.averaging_last if config.averaging == "mean" else 0
        self._count = 0
        self._last_epoch: Optional[int] = None
        self._average: Optional[Weights] = None

    @property
    def weights(self) -> Optional[Weights]:
        """The average, None before the first epoch that counts."""
        return self._average

    def update(self, weights: Weights, epoch: int) -> None:
        """Take the weights at the end of an epoch, counted from 1; epochs in between that are not given count in the decay."""
        if self._config.averaging == "none" or epoch <= self._first_epoch:
            return
        self._count += 1
        passed = 1 if self._last_epoch is None else epoch - self._last_epoch
        self._last_epoch = epoch
        if self._average is None:
            self._average = {name: _as_float(value).clone() for name, value in weights.items()}
            return
        keep = self._config.averaging_decay**passed if self._config.averaging == "exponential" else 1 - 1 / self._count
        for name, value in weights.items():
            if value.is_floating_point():
                self._average[name].mul_(keep).add_(_as_float(value), alpha=1 - keep)
            else:
                self._average[name] = value.clone()

    def state_dict(self) -> Dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self._count, "average": self._average}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._count, self._average = state["count"], state["average"]


def _as_float(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


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
