"""The weights of a checkpoint that are to be used, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, NamedTuple

import torch

from config import SHAPING_FIELDS, Config, config_of_checkpoint

from ..errors import CheckpointError
from ..instances import is_first, share
from .averages import average_checkpoints
from .checkpoint import Checkpoint, find_checkpoint, load_checkpoint, load_end


class StoredWeights(NamedTuple):
    """Weights out of a checkpoint or a run folder.

    Attributes:
        payload: of the checkpoint, which knows the config and the classes.
        kind: "current", "averaged", or "averaged, RULE" where that was done afterwards.
    """

    path: Path
    payload: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    kind: str


def load_weights(place: Path, wanted: str = "auto", averaged: str = "") -> StoredWeights:
    """Weights of a file, or of a run folder's best checkpoint, else its last; read by the first instance for all.

    Args:
        wanted: "current", "averaged", or "auto": averaged where there are any.
        averaged: "exponential" or "mean" averages the checkpoints/epoch-*.pt of a run folder instead.

    Raises:
        CheckpointError: there is none, it is damaged, or it has no average.
    """
    if averaged:
        payload, weights = share(average_checkpoints(place, averaged) if is_first() else None)
        return StoredWeights(place, payload, weights, f"averaged, {averaged}")
    path = find_checkpoint(place)
    payload = share(load_checkpoint(path) if is_first() else None)
    average = payload["averaging"]["average"]
    if wanted == "averaged" and average is None:
        raise CheckpointError("the checkpoint has no averaged weights: its run has averaging none, or ended before the first epoch")
    if average is None or wanted == "current":
        return StoredWeights(path, payload, payload["model"], "current")
    return StoredWeights(path, payload, average, "averaged")


def read_end(place: Path) -> Checkpoint:
    """A checkpoint file, or that of a run folder's end; read once, by the first instance for all.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = load_end(place) if is_first() else None
    path, payload = share((str(found.path), found.payload) if found else None)
    return Checkpoint(Path(path), payload)


def starting_weights(source: Checkpoint, config: Config) -> Mapping[str, torch.Tensor]:
    """The averaged weights of a checkpoint, else its current ones; CheckpointError where its network is not the config's."""
    stored, wanted = config_of_checkpoint(source.payload["config"], {}).model.model_dump(), config.model.model_dump()
    differing = [f"{field} {stored[field]!r}, the config {wanted[field]!r}" for field in SHAPING_FIELDS if stored[field] != wanted[field]]
    if differing:
        raise CheckpointError(
            f"{source.path} is of another network: it has {'; '.join(differing)}. Give the --config of its preset, or none"
        )
    average = source.payload["averaging"]["average"]
    return source.payload["model"] if average is None else average
