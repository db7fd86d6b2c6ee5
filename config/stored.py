"""Configs that were stored with checkpoints by earlier releases."""

from __future__ import annotations

from typing import Any, Dict, Mapping

# What was computed before a field existed, where that is not the field's default.
_BEFORE_THE_FIELD: Dict[str, Dict[str, Any]] = {"model": {"proxy_norm_scale": "everywhere"}}


def as_stored(config: Mapping[str, Any]) -> Dict[str, Any]:
    """A stored config with the fields that its release did not have yet, as what was computed then."""
    return {**config, **{section: {**fields, **config.get(section, {})} for section, fields in _BEFORE_THE_FIELD.items()}}
