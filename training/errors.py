"""The errors of this room."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why, and what is kept."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign, or of a run with another config."""
