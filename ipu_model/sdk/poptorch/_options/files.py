"""Options from JSON and from files of setter calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import enums


class ConfigFileError(Exception):
    """A line of an options file that could not be applied."""


def apply_json(options: Any, string: str) -> None:
    """Apply a JSON object of dotted setter names and arguments; a list is spread as positional arguments."""
    for name, argument in json.loads(string).items():
        arguments = argument if isinstance(argument, list) else [argument]
        setter: Any = options
        for part in name.split("."):
            setter = getattr(setter, part)
        setter(*[_enum_member(value) for value in arguments])


def apply_file(options: Any, path: str) -> None:
    """Apply a file of setter calls; ConfigFileError names the line that failed."""
    import poptorch

    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            eval(f"options.{text}", {"options": options, "poptorch": poptorch})  # the format is Python, and the file the user's own
        except Exception as error:  # noqa: BLE001  any failure is reported with its line
            raise ConfigFileError(f"{type(error).__name__} at line {number} of {Path(path).name}: {error}: {text}") from error


def _enum_member(value: Any) -> Any:
    if isinstance(value, str) and value.count(".") == 1:
        enum_name, member = value.split(".")
        if hasattr(enums, enum_name) and hasattr(getattr(enums, enum_name), member):
            return getattr(enums, enum_name)[member]
    return value
