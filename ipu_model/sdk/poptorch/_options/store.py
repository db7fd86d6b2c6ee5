"""A checked set of option values that can be frozen: what `Options` and each of its groups are made of."""

from __future__ import annotations

import copy
import difflib
from typing import Any, Dict, Mapping, Optional

from .former import warn_renamed
from .text import text_of

_FROZEN = "Can't modify frozen Options: they are fixed once given to a DataLoader or a model. Change a clone() instead."
_NOTHING: Mapping[str, Any] = {}


class OptionStore:
    """Named values whose set of keys and whose types are fixed, until frozen.

    Reading an unset key raises AttributeError; a value of another type than the present one raises AssertionError. `groups` are frozen,
    copied and printed with it; `switches` are plain attributes, neither printed nor in `toDict`.
    """

    former_names: Mapping[str, str] = {}  # of PopTorch 2, with what they are called now

    def __init__(
        self,
        values: Mapping[str, Any] = _NOTHING,
        groups: Optional[Mapping[str, OptionStore]] = None,
        switches: Mapping[str, Any] = _NOTHING,
    ) -> None:
        members = groups or {}
        self.__dict__.update(members, _values=dict(values), _groups=dict(members), _is_frozen=False, **switches)

    def __getattr__(self, key: str) -> Any:
        values = self.__dict__.get("_values", {})
        if key in values:
            return values[key]
        if key in type(self).former_names:
            successor = type(self).former_names[key]
            warn_renamed(f"{type(self).__name__}.{key}", successor)
            return getattr(self, successor)
        raise AttributeError(f"Invalid option: {type(self).__name__} has no value named {key!r}; {self._hint(key)}")

    def _hint(self, key: str) -> str:
        """The nearest setter or group, or else the known values."""
        names = [name for name in (*dir(type(self)), *self.__dict__.get("_groups", {})) if not name.startswith("_")]
        lower = {name.lower(): name for name in names}
        nearest = difflib.get_close_matches(key.lower().replace("_", ""), list(lower), 1, cutoff=0.7)
        known = sorted(self._values) or [name for name in names if name not in dir(OptionStore)]
        return f"the nearest name is {lower[nearest[0]]!r}" if nearest else f"known: {', '.join(known)}"

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.__dict__:
            self.checkIsFrozen()
            object.__setattr__(self, key, value)
        elif key.startswith("_") and key not in self._values:
            raise AttributeError(f"{type(self).__name__} has no attribute {key!r}")
        else:
            self.set(**{key: value})

    def __call__(self, key: str) -> Any:
        return self._values[key] if key in self._values else getattr(self, key)

    def set(self, **values: Any) -> OptionStore:
        """Set known keys; AssertionError for an unknown key or another type."""
        self.checkIsFrozen()
        for key, value in values.items():
            assert key in self._values, f"Unknown option {key!r}; known: {', '.join(sorted(self._values))}"
            expected = type(self._values[key])
            assert isinstance(value, expected), f"Option {key!r} takes {expected.__name__}, got {value!r}"
            self._values[key] = value
        return self

    def createOrSet(self, **values: Any) -> OptionStore:
        """Set keys, creating those that do not exist yet."""
        self.checkIsFrozen()
        for key, value in values.items():
            if key in self._values:
                self.set(**{key: value})
            else:
                self._values[key] = value
        return self

    def exists(self, key: str) -> bool:
        """Whether the key has a value."""
        return key in self._values

    def deleteIfExists(self, key: str) -> OptionStore:
        """Forget a key."""
        self.checkIsFrozen()
        self._values.pop(key, None)
        return self

    def checkIsFrozen(self) -> None:
        """AttributeError when the options are frozen."""
        if self._is_frozen:
            raise AttributeError(_FROZEN)

    def toDict(self) -> Dict[str, Any]:
        """The values."""
        return dict(self._values)

    def _freeze(self) -> None:
        freeze(self)

    def _unfreeze(self) -> None:
        freeze(self, False)

    def __deepcopy__(self, memo: Dict[int, Any]) -> OptionStore:
        duplicate = self.__class__.__new__(self.__class__)
        memo[id(self)] = duplicate
        duplicate.__dict__.update((name, copy.deepcopy(value, memo)) for name, value in self.__dict__.items())
        duplicate.__dict__["_is_frozen"] = False
        return duplicate

    def __getstate__(self) -> Dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _shown(self) -> Mapping[str, Any]:
        return self._values

    def __repr__(self) -> str:
        parts = [f"{key}={text_of(value)}" for key, value in sorted(self._shown().items())]
        parts += [f"{name}={group!r}" for name, group in self._groups.items()]
        return f"{type(self).__name__}({', '.join(parts)})"


def freeze(options: OptionStore, is_frozen: bool = True) -> None:
    """Fix the values of options and of their groups, or let them be changed again."""
    options.__dict__["_is_frozen"] = is_frozen
    for group in options._groups.values():
        freeze(group, is_frozen)
