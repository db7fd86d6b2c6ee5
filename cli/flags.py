"""Flags from the fields of the sections: one argparse group for each section, `--field-name` for `field_name`.

The second phase's flags are those of its fields with `--fine-tune-` before them.
"""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple, get_args, get_origin

from typing_extensions import Literal

from config import NONE, OVERLAY, PLACES, SECTIONS, nearest, shown

MAX_MESSAGE = 2000  # characters of an error
SECOND_PHASE = (
    "The second phase, which follows where it has epochs: each flag says what differs there; what none says is as in the preset, and where "
    "that says nothing as in the first phase."
)


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, which names the nearest known flag for one it does not know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self.usage = settings.get("usage") or f"{self.prog} [options]"

    def parse_known_or_fail(self, arguments: Optional[Sequence[str]]) -> argparse.Namespace:
        """Parse; an unknown flag ends the program with the nearest known one."""
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown argument {shown(unknown[0])}{nearest(unknown[0].split('=')[0], known)}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        line = " ".join(message.splitlines())
        self.exit(2, f"{self.prog}: error: {line if len(line) <= MAX_MESSAGE else line[:MAX_MESSAGE] + ' ...'}\n")


def add_field_flags(parser: argparse.ArgumentParser, fields: Optional[Sequence[str]] = None) -> None:
    """Add a flag for each field (or for those named, see `PLACES`), grouped by section, with its unit and default."""
    groups = {name: parser.add_argument_group(name, section.__doc__) for name, section in SECTIONS.items() if _has_any(name, fields)}
    if _has_any(OVERLAY, fields):
        groups[OVERLAY] = parser.add_argument_group(OVERLAY, SECOND_PHASE)
    for field, place in PLACES.items():
        if fields is None or field in fields:
            info = SECTIONS[place[-2]].model_fields[place[-1]]
            text = _explained_anew(field) if place[0] == OVERLAY else _explained(info)
            _add_flag(groups[place[0]], field, info, text.replace("%", "%%"))


def _has_any(group: str, fields: Optional[Sequence[str]]) -> bool:
    return fields is None or any(PLACES[field][0] == group for field in fields)


def _dashed(field: str) -> str:
    return field.replace("_", "-")


def _explained_anew(field: str) -> str:
    name = field[len(OVERLAY) + 1 :]
    return f"as --{_dashed(name)}{'; none: no second phase' if name == 'epochs' else ''}"


def _explained(info: Any) -> str:
    default = NONE if info.default is None or info.default == () else info.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    names = _names(info.annotation)
    return f"{info.description}{'; one of ' + ', '.join(names) if names else ''} (default {default})"


def _add_flag(group: Any, field: str, info: Any, text: str) -> None:
    flag, kind = f"--{_dashed(field)}", _without_none(info.annotation)
    unit = info.json_schema_extra["unit"]
    shared: Dict[str, Any] = dict(dest=field, default=argparse.SUPPRESS)
    if kind is bool:
        group.add_argument(flag, action="store_true", help=text, **shared)
        group.add_argument(*_negatives(field), action="store_false", help=argparse.SUPPRESS, **shared)
    elif get_origin(kind) is tuple:
        item = _bare(get_args(kind)[0])
        group.add_argument(flag, nargs="*", type=_value_of(item), metavar=_metavar(unit, item), help=text, **shared)
    elif get_origin(kind) is Literal:
        group.add_argument(flag, choices=_names(info.annotation), help=text, metavar="NAME", **shared)
    else:
        group.add_argument(flag, type=_value_of(_bare(kind)), metavar=_metavar(unit, _bare(kind)), help=text, **shared)


def _negatives(field: str) -> List[str]:
    """`--no-recomputation`; of the second phase `--fine-tune-no-recomputation`, or the other way round."""
    dashed, prefix = _dashed(field), f"{_dashed(OVERLAY)}-"
    return [f"--no-{dashed}", *([f"--{prefix}no-{dashed[len(prefix) :]}"] if dashed.startswith(prefix) else [])]


def _without_none(annotation: Any) -> Any:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if type(None) in get_args(annotation) else annotation


def _names(annotation: Any) -> Tuple[str, ...]:
    """What a field of names takes, `none` included where it is optional; empty for other fields."""
    kind = _without_none(annotation)
    if get_origin(kind) is not Literal:
        return ()
    return get_args(kind) if kind is annotation else (*get_args(kind), NONE)


def _bare(kind: Any) -> Any:
    """The type in `Annotated[type, limits]`."""
    return getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind


def _metavar(unit: Optional[str], kind: Any) -> str:
    return (unit or ("TEXT" if kind is str else kind.__name__)).upper().replace(" ", "_")


def _value_of(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads a value of a type, or `none`, whose meaning the field knows."""

    def value(text: str) -> Any:
        if text == NONE:
            return text
        try:
            return kind(text)
        except ValueError:
            names = {"int": "a whole number", "float": "a number"}
            raise argparse.ArgumentTypeError(f"expected {names[kind.__name__]}, got {shown(text)}") from None

    return value


def field_values(namespace: argparse.Namespace) -> Dict[str, Any]:
    """The fields that were given on the command line."""
    values = {name: value for name, value in vars(namespace).items() if name in PLACES}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
