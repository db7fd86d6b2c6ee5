"""Nested arguments and results as flat lists: dicts, lists and tuples with all their subclasses, and types with a registered parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from .errors import Error

parsers: Dict[type, Any] = {}  # by registered type; subclasses match too


def parser_of(value: Any) -> Any:
    """The parser registered for the class of a value, or for a type that it is an instance of; None where there is none."""
    if not parsers:
        return None
    exact = parsers.get(type(value))
    return exact or next((parser for kind, parser in parsers.items() if isinstance(value, kind)), None)


@dataclass(frozen=True)
class Structure:
    """What a nested value is made of; a leaf, tensor or constant, has no class.

    Attributes:
        cls: class of the dict, list or tuple, or of what a registered parser takes apart.
        keys: those of a dict, in its order.
        parts: structures of what is inside, in order.
        original: what a registered parser took apart.
    """

    cls: Optional[type] = None
    keys: Tuple[Any, ...] = ()
    parts: Tuple[Structure, ...] = ()
    original: Any = None

    def flatten(self, value: Any) -> List[Any]:
        """Leaves of another value of this structure, in this structure's order: those of a dict by their keys.

        Raises:
            Error: the value is made otherwise.
        """
        return list(self._leaves(value))

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The structure with these leaves in it; each container is made by its own class.

        Raises:
            Error: a dict class cannot be made of a dict, or a list or tuple class of its elements.
        """
        return self._build(iter(leaves))

    def _leaves(self, value: Any) -> Iterator[Any]:
        if self.cls is None:
            yield value
            return
        values = _parts_of(value) if self.original is not None or not issubclass(self.cls, dict) else [value[key] for key in self.keys]
        if values is None or len(values) != len(self.parts):
            raise Error(f"expected a {self.cls.__name__} of {len(self.parts)} parts as at compilation, got {type(value).__name__}.")
        for part, inner in zip(self.parts, values):
            yield from part._leaves(inner)

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.cls is None:
            return next(leaves)
        parts = [part._build(leaves) for part in self.parts]
        if self.original is not None:
            return parser_of(self.original).reconstruct(self.original, iter(parts))
        try:
            if issubclass(self.cls, dict):
                return self.cls(dict(zip(self.keys, parts)))
            return self.cls(*parts) if hasattr(self.cls, "_fields") else self.cls(parts)
        except TypeError as error:
            raise Error(
                f"{self.cls.__name__} cannot be made again from its parts ({error}): register a parser for it with registerCustomArgParser."
            ) from error


_LEAF = Structure()


def flatten(value: Any) -> Tuple[List[Any], Structure]:
    """Leaves of a value, tensors or constants, and what puts them together again."""
    values = _parts_of(value)
    if values is None:
        return [value], _LEAF
    leaves: List[Any] = []
    parts: List[Structure] = []
    for inner in values:
        inner_leaves, part = flatten(inner)
        leaves += inner_leaves
        parts.append(part)
    keys = tuple(value) if isinstance(value, dict) else ()
    return leaves, Structure(type(value), keys, tuple(parts), None if parser_of(value) is None else value)


def _parts_of(value: Any) -> Optional[List[Any]]:
    """What is inside of a value, None for a leaf."""
    parser = parser_of(value)
    if parser is not None:
        return list(parser.yieldTensors(value))
    if isinstance(value, dict):
        return [value[key] for key in value]
    return list(value) if isinstance(value, (list, tuple)) else None


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """A value with a function applied to each of its leaves."""
    leaves, structure = flatten(value)
    return structure.unflatten([function(leaf) for leaf in leaves])


def tensors_in(value: Any) -> List[torch.Tensor]:
    """The tensors of a nested value, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, (list, tuple)) else []
