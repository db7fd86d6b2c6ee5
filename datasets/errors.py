"""The errors of this room."""

from __future__ import annotations

from config import UserError


class DataError(UserError):
    """Data that is not where it should be, or not what it should be: says what was expected where, and what to do."""


class UnreadableImage(Exception):
    """One image that cannot be read, and why; a set goes on without it."""
