"""What every mistake of a user has in common, and how values and near names are shown in messages."""

from __future__ import annotations

import difflib
from typing import Any, Iterable

MAX_SHOWN = 80  # characters of a value in a message


class UserError(ValueError):
    """A user's mistake, in any room: the message says what was expected, what came, and what to do. It is shown without a traceback."""


class ConfigError(UserError):
    """A mistake in a preset, a flag or a file of presets."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a name that is not known, or nothing."""
    matches = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1, cutoff=0.4)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def shown(value: Any) -> str:
    """A value in a message: on one line, and cut where it is long."""
    try:
        text = repr(value[:MAX_SHOWN] if isinstance(value, (str, bytes, tuple, list)) and len(value) > MAX_SHOWN else value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints, a nested value
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."
