"""Nested arguments and results as flat lists: tuples, lists, dicts, named tuples, and types that a program registers a parser for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch.utils import _pytree as pytree

parsers: Dict[type, Any] = {}  # by registered type; subclasses match too


def parser_of(value: Any) -> Any:
    """The parser registered for the type of a value or for one of its bases, None where there is none."""
    return next((parsers[base] for base in type(value).__mro__ if base in parsers), None) if parsers else None


@dataclass(frozen=True)
class Structure:
    """What `flatten` took apart.

    `customs` has, for each leaf of the tree of a registered type, (original, number of its tensors); None for other leaves.
    """

    tree: pytree.TreeSpec
    customs: Tuple[Optional[Tuple[Any, int]], ...]

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The structure with these leaves in it."""
        if not any(self.customs):
            return pytree.tree_unflatten(list(leaves), self.tree)
        remaining = iter(leaves)
        parts = [
            next(remaining)
            if custom is None
            else parser_of(custom[0]).reconstruct(custom[0], iter([next(remaining) for _ in range(custom[1])]))
            for custom in self.customs
        ]
        return pytree.tree_unflatten(parts, self.tree)


def flatten(value: Any) -> Tuple[List[Any], Structure]:
    """Leaves of a value, tensors or constants, and what puts them together again."""
    parts, tree = pytree.tree_flatten(value)
    if not parsers:
        return parts, Structure(tree, (None,) * len(parts))
    leaves: List[Any] = []
    customs: List[Optional[Tuple[Any, int]]] = []
    for part in parts:
        parser = parser_of(part)
        tensors = [part] if parser is None else list(parser.yieldTensors(part))
        leaves += tensors
        customs.append(None if parser is None else (part, len(tensors)))
    return leaves, Structure(tree, tuple(customs))
