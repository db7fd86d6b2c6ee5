"""The differences of two configs, and which of them a resumed run may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List

from .resolved import OVERLAY, PLACES, SECTIONS, Config
from .stored import sections_of

AS_IN_THE_FIRST = "as in the first phase"  # of a field that a second phase does not state


@dataclass(frozen=True)
class Difference:
    """A field by its flag's name, and its values."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        before, after = (list(value) if isinstance(value, tuple) else value for value in (self.before, self.after))
        return f"{self.field} was {before!r}, is {after!r}"


def may_change(field: str) -> bool:
    """Whether a resumed run may change this field, which the field itself says."""
    section, name = PLACES[field][-2:]
    extra = SECTIONS[section].model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra["is_free"])


def differences(before: Config, after: Config) -> List[Difference]:
    """The fields whose values differ; those of second phases where both have one, else whether there is one."""
    fields = [field for field, place in PLACES.items() if place[0] != OVERLAY or len(before.phases) == len(after.phases) == 2]
    old, new = _values(before), _values(after)
    found = [Difference(field, old[field], new[field]) for field in fields if old[field] != new[field]]
    if len(before.phases) != len(after.phases):
        counts = [config.phases[1].schedule.epochs if len(config.phases) == 2 else None for config in (before, after)]
        found.append(Difference(f"{OVERLAY}_epochs", *counts))
    return found


def _values(config: Config) -> Dict[str, Any]:
    """The value of every field by its flag's name."""
    values = {}
    stored = sections_of(config)
    for field, (*sections, name) in PLACES.items():
        section = stored
        for part in sections:
            section = section.get(part, {})
        values[field] = section.get(name, AS_IN_THE_FIRST)
    return values
