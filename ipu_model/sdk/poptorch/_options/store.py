"""A checked set of option values that can be frozen: what `Options` and each of its groups are made of."""

from __future__ import annotations

import copy
from typing import Any, Dict

_FROZEN = "Can't modify frozen Options: they are fixed once given to a DataLoader or a model. Change a clone() instead."


class OptionStore:
    """Named values whose set of keys and whose types are fixed, until frozen.

    Reading an unset key raises AttributeError; a value of another type than the present one raises AssertionError.
    """

    def __init__(self, **defaults: Any) -> None:
        object.__setattr__(self, "_values", dict(defaults))
        object.__setattr__(self, "_is_frozen", False)

    def __getattr__(self, key: str) -> Any:
        values = self.__dict__.get("_values", {})
        if key in values:
            return values[key]
        raise AttributeError(f"Invalid option: {type(self).__name__} has no value named {key!r}; known: {sorted(values)}")

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.__dict__ or hasattr(type(self), key):
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
            assert key in self._values, f"Unknown option {key!r}; known: {sorted(self._values)}"
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
        for group in self._groups().values():
            group._freeze()
        object.__setattr__(self, "_is_frozen", True)

    def _unfreeze(self) -> None:
        object.__setattr__(self, "_is_frozen", False)
        for group in self._groups().values():
            group._unfreeze()

    def _groups(self) -> Dict[str, OptionStore]:
        return {name: value for name, value in self.__dict__.items() if isinstance(value, OptionStore)}

    def __deepcopy__(self, memo: Dict[int, Any]) -> OptionStore:
        duplicate = self.__class__.__new__(self.__class__)
        memo[id(self)] = duplicate
        for name, value in self.__dict__.items():
            object.__setattr__(duplicate, name, copy.deepcopy(value, memo))
        object.__setattr__(duplicate, "_is_frozen", False)
        return duplicate

    def __getstate__(self) -> Dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        parts = [f"{key}={value!r}" for key, value in self._values.items()]
        parts += [f"{name}={group!r}" for name, group in self._groups().items()]
        return f"{type(self).__name__}({', '.join(parts)})"
