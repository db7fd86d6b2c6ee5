"""From a preset's name and flags to one checked Config: presets that extend one another, merged section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from pydantic import ValidationError

from .errors import ConfigError, nearest, shown
from .merging import merge
from .reading import PARENTS, PRESETS_FILE, read_presets
from .resolved import OVERLAY, OVERLAY_SECTIONS, PLACES, SECTIONS, Config
from .sections import is_none
from .stored import current_sections, sections_of


def preset_names(path: Path = PRESETS_FILE) -> List[str]:
    """Names that `--config` takes; entries that begin with an underscore are only there to be extended."""
    return [name for name in read_presets(path) if not name.startswith("_")]


def load_preset(name: str, overrides: Mapping[str, Any], path: Path = PRESETS_FILE) -> Config:
    """The resolved Config of a preset.

    Args:
        overrides: values by field name (see `PLACES`), which win over the preset.

    Raises:
        ConfigError: unknown preset, section or field (the nearest known one is named), wrong type or value, in any phase.
    """
    presets = read_presets(path)
    if name not in presets or name.startswith("_"):
        raise ConfigError(f"unknown preset {shown(name)}{nearest(name, [n for n in presets if not n.startswith('_')])}; see --list-configs")
    return _build(name, _resolve(name, presets, ()), overrides)


def with_fields(config: Config, **fields: Any) -> Config:
    """The config with other values by field name, checked as a whole."""
    return _build(config.preset, sections_of(config), fields)


def config_of_checkpoint(stored: Mapping[str, Any], fields: Mapping[str, Any]) -> Config:
    """The config that a checkpoint or a run's config.yml keeps, of this release or an earlier one, with other values by field name."""
    return _build(stored["preset"], current_sections(stored), fields)


def build_config(name: str, sections: Mapping[str, Any]) -> Config:
    """Check nested plain values, all phases of them; ConfigError names preset, field, value and what is allowed."""
    for section in sections:
        if section not in SECTIONS and section != OVERLAY:
            raise ConfigError(f"preset {shown(name)}: unknown section {shown(section)}{nearest(section, SECTIONS)}")
    try:
        config = Config(
            preset=name,
            **{section: sections.get(section, {}) for section in SECTIONS},
            fine_tune=_checked_overlay(name, sections.get(OVERLAY, {})),
        )
    except ValidationError as error:
        raise ConfigError(_explain(name, error)) from None
    try:
        config.phases  # noqa: B018  a mistake in the second phase shows before the first begins
    except ValidationError as error:
        raise ConfigError(_explain(name, error, OVERLAY)) from None
    return config


def _build(name: str, sections: Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    layer: Dict[str, Any] = {}
    for field, value in overrides.items():
        if field not in PLACES:
            raise ConfigError(f"unknown field {shown(field)}{nearest(field, PLACES)}")
        *folders, last = PLACES[field]
        place = layer
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    config = build_config(name, merge(sections, layer))
    stated = [field for field, value in overrides.items() if PLACES[field][0] == OVERLAY and not is_none(value)]
    if stated and len(config.phases) == 1:
        raise ConfigError(
            f"preset {name!r}: {stated[0]} belongs to a second phase, and there is none: give fine_tune_epochs, such as 2, as well"
        )
    return config


def _checked_overlay(name: str, overlay: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """What a second phase states, with the types and ranges of its fields checked, whether or not there is a second phase."""
    checked = {}
    for section, values in overlay.items():
        if section not in OVERLAY_SECTIONS:
            raise ConfigError(f"preset {name!r}: unknown section {shown(f'{OVERLAY}.{section}')}{nearest(section, OVERLAY_SECTIONS)}")
        try:
            checked[section] = OVERLAY_SECTIONS[section](**values).model_dump(exclude_unset=True)
        except ValidationError as error:
            raise ConfigError(_explain(name, error, f"{OVERLAY}.{section}")) from None
    return checked


def _resolve(name: str, presets: Mapping[str, Any], seen: Sequence[str]) -> Dict[str, Any]:
    """A preset merged over those it extends, the deepest first."""
    if name in seen:
        raise ConfigError(f"preset {seen[0]!r} extends itself: {' -> '.join([*seen, name])}")
    if name not in presets:
        raise ConfigError(f"preset {seen[-1]!r} extends the unknown preset {shown(name)}{nearest(name, presets)}")
    merged: Dict[str, Any] = {}
    for parent in presets[name].get(PARENTS, []):
        merged = merge(merged, _resolve(parent, presets, [*seen, name]))
    return merge(merged, {key: value for key, value in presets[name].items() if key != PARENTS})


def _explain(name: str, error: ValidationError, prefix: str = "") -> str:
    return f"preset {shown(name)}: " + "; ".join(_explain_one(problem, prefix) for problem in error.errors())


def _explain_one(problem: Any, prefix: str) -> str:
    parts = [*([prefix] if prefix else []), *(str(part) for part in problem["loc"] if not isinstance(part, int))]
    place = ".".join(parts) or "config"
    if problem["type"] == "extra_forbidden":
        *sections, field = place.split(".")
        known = OVERLAY_SECTIONS if sections[0] == OVERLAY else SECTIONS
        suggestion = nearest(field, known[sections[-1]].model_fields) if sections[-1] in known else ""
        return f"unknown field {shown(place)}{suggestion}"
    message = problem["msg"].replace("Value error, ", "")
    got = "" if problem["type"] == "value_error" else f", got {shown(problem['input'])}"
    return f"{place}: {message}{got}{_number_hint(problem['input'])}"


def _number_hint(value: Any) -> str:
    if isinstance(value, str) and len(value) < 40 and "e" in value.lower():
        try:
            return f" (YAML reads {value} as text: write {float(value)!r} with a point)" if float(value) else ""
        except ValueError:
            return ""
    return ""
