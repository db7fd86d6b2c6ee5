"""Values as text that is the same for equal values, in every process."""

from __future__ import annotations

from typing import Any


def text_of(value: Any) -> str:
    """repr(value), with the entries of dicts and sets in order, and objects that would show their address by their class."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{text_of(key)}: {text_of(part)}" for key, part in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(text_of, value))) + "}"
    if isinstance(value, (list, tuple)):
        parts = ", ".join(map(text_of, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts})"
    has_text = type(value).__repr__ is not object.__repr__ and not hasattr(value, "__qualname__")
    return repr(value) if has_text else f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"
