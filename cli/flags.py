"""Flags from the fields of the sections: one argparse group for each section, `--field-name` for `field_name`."""

from __future__ import annotations

import argparse
from typing import Any, Dict, NoReturn, Optional, Sequence, get_args, get_origin, get_type_hints

from typing_extensions import Literal

from config import SECTION_OF_FIELD, SECTIONS, nearest


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, which names the nearest known flag for one it does not know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def parse_known_or_fail(self, arguments: Optional[Sequence[str]]) -> argparse.Namespace:
        """Parse; an unknown flag ends the program with the nearest known one."""
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], known)}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_field_flags(parser: argparse.ArgumentParser, fields: Optional[Sequence[str]] = None) -> None:
    """Add a flag for each field (or for those named), grouped by section, with its default."""
    for name, section in SECTIONS.items():
        group = parser.add_argument_group(name, section.__doc__)
        hints = get_type_hints(section)
        for field, info in section.model_fields.items():
            if fields is None or field in fields:
                _add_flag(group, field, hints[field], info.default, info.description or "")


def _add_flag(group: Any, field: str, kind: Any, default: Any, description: str) -> None:
    flag = "--" + field.replace("_", "-")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    text = f"{description} (default {shown if shown != '' else 'empty'})".strip().replace("%", "%%")
    if kind is bool:
        group.add_argument(flag, dest=field, action="store_true", default=argparse.SUPPRESS, help=text)
        group.add_argument(f"--no-{flag[2:]}", dest=field, action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    elif get_origin(kind) is tuple:
        item = get_args(kind)[0]
        group.add_argument(flag, dest=field, nargs="*", type=item, metavar=item.__name__.upper(), default=argparse.SUPPRESS, help=text)
    elif get_origin(kind) is Literal:
        group.add_argument(flag, dest=field, choices=get_args(kind), default=argparse.SUPPRESS, help=text, metavar="NAME")
        group._group_actions[-1].help = f"{text}; one of {', '.join(get_args(kind))}"
    else:
        group.add_argument(flag, dest=field, type=kind, metavar=kind.__name__.upper(), default=argparse.SUPPRESS, help=text)


def field_values(namespace: argparse.Namespace) -> Dict[str, Any]:
    """The fields that were given on the command line."""
    values = {name: value for name, value in vars(namespace).items() if name in SECTION_OF_FIELD}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
