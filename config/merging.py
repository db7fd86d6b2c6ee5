"""How values stated later win: a preset's over its parents', flags over presets, a second phase over the first."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from .sections import is_none

# Two ways to state one thing: the one stated later removes the other.
ALTERNATIVES = {"global_batch_size": "gradient_accumulation", "gradient_accumulation": "global_batch_size"}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Dict[str, Any]:
    """Nested values of `above` over those of `below`, section by section; neither is changed."""
    merged = dict(below)
    for key in above:
        alternative = ALTERNATIVES.get(key)
        if alternative and _is_stated(above, key) and not _is_stated(above, alternative):
            merged.pop(alternative, None)
    for key, value in above.items():
        is_nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if is_nested else value
    return merged


def _is_stated(values: Mapping[str, Any], key: str) -> bool:
    return not is_none(values.get(key))
