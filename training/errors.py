"""The errors of this room."""

from __future__ import annotations

from config import UserError


class TrainingError(UserError):
    """A run that cannot go on; the message says why, and what is kept."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, foreign, or of a run with another config."""
