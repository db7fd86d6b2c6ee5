"""What every mistake of a user has in common."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake, in any room: the message says what was expected, what came, and what to do. It is shown without a traceback."""


class ConfigError(UserError):
    """A mistake in a preset, a flag or a file of presets."""
