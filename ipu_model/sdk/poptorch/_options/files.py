"""Options from JSON and from files of setter calls."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from .. import enums


class ConfigFileError(Exception):
    """An options file that is not Python."""


def apply_json(options: Any, string: str) -> None:
    """Apply a JSON object of dotted setter names and arguments; a list is spread as positional arguments."""
    for name, argument in json.loads(string).items():
        arguments = argument if isinstance(argument, list) else [argument]
        setter: Any = options
        for part in name.split("."):
            setter = getattr(setter, part)
        setter(*[_enum_member(value) for value in arguments])


def apply_file(options: Any, path: str) -> None:
    """Run a file of statements, each written on one line without its leading `options.`; `poptorch` is in scope.

    Raises:
        ConfigFileError: a syntax error, with its line. What a statement raises comes as it is.
    """
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    statements = [f"options.{line}" if line and not line.startswith("#") else "" for line in lines]
    try:
        code = compile("\n".join(statements) + "\n", str(path), "exec")
    except SyntaxError as error:
        number = min(error.lineno or 1, len(lines))
        detail = f"{type(error).__name__} at line {number} of {Path(path).name}: {error.msg}: {lines[number - 1]}"
        raise ConfigFileError(f"{detail} (expected one setter call a line, such as deviceIterations(4))") from error
    exec(code, {"options": options, "poptorch": importlib.import_module(__name__.partition(".")[0])})  # the file is the user's own


def _enum_member(value: Any) -> Any:
    if isinstance(value, str) and value.count(".") == 1:
        enum_name, member = value.split(".")
        if hasattr(enums, enum_name) and hasattr(getattr(enums, enum_name), member):
            return getattr(enums, enum_name)[member]
    return value
