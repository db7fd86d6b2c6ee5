"""Reads configs.yml: presets that extend one another, merged section by section, checked field by field."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import yaml
from pydantic import ValidationError

from .errors import ConfigError
from .resolved import SECTION_OF_FIELD, SECTIONS, Config

PRESETS_FILE = Path(__file__).parent.parent / "configs.yml"


class _UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, where PyYAML has it
    """YAML in which a repeated key is an error."""


def _unique_mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> Dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            line = node.value[index][0].start_mark.line + 1
            raise ConfigError(f"line {line}: the key {key!r} is repeated; remove one of the two")
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_presets(path: Path = PRESETS_FILE) -> Dict[str, Dict[str, Any]]:
    """All entries of a presets file as written; ConfigError where it is not YAML."""
    return _parse(path.read_text(encoding="utf-8"), str(path))


@functools.lru_cache(maxsize=None)
def _parse(text: str, name: str) -> Dict[str, Dict[str, Any]]:
    try:
        return yaml.load(text, _UniqueKeyLoader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error


def preset_names(path: Path = PRESETS_FILE) -> List[str]:
    """Names that `--config` takes; entries that begin with an underscore are only there to be extended."""
    return [name for name in read_presets(path) if not name.startswith("_")]


def load_preset(name: str, overrides: Mapping[str, Any], path: Path = PRESETS_FILE) -> Config:
    """The resolved Config of a preset.

    Args:
        overrides: values by field name, which win over the preset.

    Raises:
        ConfigError: unknown preset, section or field (the nearest known one is named), wrong type or value.
    """
    presets = read_presets(path)
    if name not in presets or name.startswith("_"):
        raise ConfigError(f"unknown preset {name!r}{nearest(name, [n for n in presets if not n.startswith('_')])}; see --list-configs")
    merged = _resolve(name, presets, ())
    for field, value in overrides.items():
        if field not in SECTION_OF_FIELD:
            raise ConfigError(f"unknown field {field!r}{nearest(field, list(SECTION_OF_FIELD))}")
        merged = _merge(merged, {SECTION_OF_FIELD[field]: {field: value}})
    return build_config(name, merged)


def build_config(name: str, sections: Mapping[str, Any]) -> Config:
    """Check nested plain values, such as those stored with a checkpoint; ConfigError names preset, field, value and what is allowed."""
    values: Dict[str, Any] = {section: _as_tuples(name, section, sections.get(section, {})) for section in SECTIONS}
    for section in sections:
        if section not in SECTIONS:
            raise ConfigError(f"preset {name!r}: unknown section {section!r}{nearest(section, list(SECTIONS))}")
    try:
        return Config(preset=name, **values)
    except ValidationError as error:
        raise ConfigError(_explain(name, error)) from None


def with_fields(config: Config, **fields: Any) -> Config:
    """The config with other values by field name, checked as a whole."""
    return config_of_checkpoint({"preset": config.preset, **{name: getattr(config, name).model_dump() for name in SECTIONS}}, fields)


def config_of_checkpoint(stored: Mapping[str, Any], fields: Mapping[str, Any]) -> Config:
    """The config that a checkpoint keeps, as `preset` and sections of plain values, with other values by field name."""
    sections = {name: dict(stored.get(name, {})) for name in SECTIONS}
    for field, value in fields.items():
        sections[SECTION_OF_FIELD[field]][field] = value
    return build_config(stored["preset"], sections)


def _resolve(name: str, presets: Mapping[str, Any], seen: Sequence[str]) -> Dict[str, Any]:
    """A preset merged over those it extends, the deepest first."""
    if name in seen:
        raise ConfigError(f"preset {seen[0]!r} extends itself: {' -> '.join([*seen, name])}")
    if name not in presets:
        raise ConfigError(f"preset {seen[-1]!r} extends the unknown preset {name!r}{nearest(name, list(presets))}")
    entry = presets[name] or {}
    if not isinstance(entry, dict):
        raise ConfigError(f"preset {name!r} must hold sections ({', '.join(SECTIONS)}), got {entry!r}")
    parents = entry.get("extends", [])
    merged: Dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = _merge(merged, _resolve(parent, presets, [*seen, name]))
    return _merge(merged, {key: value for key, value in entry.items() if key != "extends"})


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        is_nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if is_nested else value
    return merged


def _as_tuples(name: str, section: str, values: Any) -> Dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"preset {name!r}: section {section!r} must hold fields, got {values!r}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _explain(name: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int)) or "config"
        field = place.split(".")[-1]
        if problem["type"] == "extra_forbidden":
            section = place.split(".")[0]
            known = list(SECTIONS[section].model_fields) if section in SECTIONS else []
            lines.append(f"unknown field {place!r}{nearest(field, known)}")
            continue
        message = problem["msg"].replace("Value error, ", "")
        got = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
        lines.append(f"{place}: {message}{got}{_number_hint(problem['input'])}")
    return f"preset {name!r}: " + "; ".join(lines)


def _number_hint(value: Any) -> str:
    if isinstance(value, str):
        try:
            return f" (YAML reads {value} as text: write {float(value)!r} with a point)" if "e" in value.lower() and float(value) else ""
        except ValueError:
            return ""
    return ""


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion for a name that is not known, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {matches[0]!r}?" if matches else ""
