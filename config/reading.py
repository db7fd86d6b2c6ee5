"""Reads a file of presets: YAML in which a repeated key is an error, and each entry has the shape of a preset."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Dict, Mapping

import yaml

from .errors import ConfigError, nearest, shown
from .resolved import OVERLAY, OVERLAY_SECTIONS, SECTIONS

PRESETS_FILE = Path(__file__).parent.parent / "configs.yml"
PARENTS = "extends"
_MERGE_TAG = "tag:yaml.org,2002:merge"


class _UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, where PyYAML has it
    """YAML in which a repeated key is an error."""


def _unique_mapping(loader: Any, node: yaml.MappingNode) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag == _MERGE_TAG:
            raise ConfigError(f"line {line}: << would replace whole sections: write {PARENTS}: NAME, which merges them field by field")
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"line {line}: a key must be text, got {shown(key)}")
        if key in values:
            raise ConfigError(f"line {line}: the key {shown(key)} is repeated; remove one of the two")
        values[key] = loader.construct_object(value_node, deep=True)
    return values


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_presets(path: Path = PRESETS_FILE) -> Dict[str, Dict[str, Any]]:
    """All entries of a presets file as written: sections, and `extends`, a list of names.

    Raises:
        ConfigError: it cannot be read, is not YAML, or an entry has another shape.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.object[error.start]:#04x} at position {error.start}") from None
    return _parse(text, str(path))


@functools.lru_cache(maxsize=None)
def _parse(text: str, name: str) -> Dict[str, Dict[str, Any]]:
    try:
        entries = yaml.load(text, _UniqueKeyLoader) or {}
    except ConfigError as error:
        raise ConfigError(f"{name}, {error}") from None
    except RecursionError:
        raise ConfigError(f"{name} is not a file of presets: nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as an integer of 5,000 digits, the month 13
        raise ConfigError(f"{name} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(entries, dict):
        raise ConfigError(f"{name} must hold presets by name, got {shown(entries)}")
    return {preset: _checked_entry(preset, entry) for preset, entry in entries.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _checked_entry(name: str, entry: Any) -> Dict[str, Any]:
    """An entry whose shape is that of a preset: names to extend, sections of fields, one level more in the second phase's."""
    where = f"preset {shown(name)}"
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must hold sections ({', '.join(SECTIONS)}), got {shown(entry)}")
    checked = {section: values for section, values in entry.items() if section not in (PARENTS, OVERLAY)}
    checked = _checked_sections(where, "", checked, SECTIONS)
    if PARENTS in entry:
        checked[PARENTS] = _checked_parents(where, entry[PARENTS])
    if OVERLAY in entry:
        if entry[OVERLAY] is not None and not isinstance(entry[OVERLAY], dict):
            raise ConfigError(f"{where}: {OVERLAY} must hold sections ({', '.join(OVERLAY_SECTIONS)}), got {shown(entry[OVERLAY])}")
        checked[OVERLAY] = _checked_sections(where, f"{OVERLAY}.", entry[OVERLAY] or {}, OVERLAY_SECTIONS)
    return checked


def _checked_parents(where: str, parents: Any) -> Any:
    names = [parents] if isinstance(parents, str) else parents
    if not isinstance(names, list) or not all(isinstance(parent, str) for parent in names):
        raise ConfigError(f"{where}: {PARENTS} takes the name of a preset, or a list of names, got {shown(parents)}")
    return names


def _checked_sections(where: str, prefix: str, sections: Mapping[str, Any], known: Mapping[str, Any]) -> Dict[str, Any]:
    checked = {}
    for section, fields in sections.items():
        if section not in known:
            raise ConfigError(f"{where}: unknown section {shown(prefix + section)}{nearest(section, known)}")
        if fields is not None and not isinstance(fields, dict):
            raise ConfigError(f"{where}: section {prefix + section!r} must hold fields, got {shown(fields)}")
        checked[section] = dict(fields or {})
    return checked
