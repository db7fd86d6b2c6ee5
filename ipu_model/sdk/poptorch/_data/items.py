"""Items of a data set as flat lists of tensors, and what puts them together again: the same in every mode and process."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.structures import parser_of


@dataclass(frozen=True)
class _Place:
    """Where a tensor was."""


@dataclass(frozen=True)
class _Custom:
    """Where a value of a registered type was: the value with tensors of the same shapes and without data, and their number."""

    original: Any
    num_tensors: int


_PLACE = _Place()


def take_apart(item: Any) -> Tuple[List[torch.Tensor], Any]:
    """The tensors of an item in order, and its skeleton, which can be sent to another process."""
    tensors: List[torch.Tensor] = []

    def visit(value: Any) -> Any:
        parser = parser_of(value)
        if parser is not None:
            own = list(parser.yieldTensors(value))
            tensors.extend(own)
            return _Custom(parser.reconstruct(value, iter([_without_data(tensor) for tensor in own])), len(own))
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return _PLACE
        return _map(visit, value)

    skeleton = visit(item)
    return tensors, skeleton


def put_together(skeleton: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The item of a skeleton with these tensors in it."""
    remaining: Iterator[torch.Tensor] = iter(tensors)

    def visit(value: Any) -> Any:
        if isinstance(value, _Place):
            return next(remaining)
        if isinstance(value, _Custom):
            own = [next(remaining) for _ in range(value.num_tensors)]
            return parser_of(value.original).reconstruct(value.original, iter(own))
        return _map(visit, value)

    return visit(skeleton)


def as_lists(item: Any) -> Any:
    """An item with lists in place of tuples."""
    if parser_of(item) is None and isinstance(item, (list, tuple)):
        return [as_lists(value) for value in item]
    return item if parser_of(item) is not None else _map(as_lists, item)


def join(items: Sequence[Any]) -> Any:
    """Batches one behind the other: their tensors joined along dimension 0, in the structure of the first.

    Raises:
        Error: batches of different structure, or with values in them that are no tensors and so cannot be joined.
    """
    parts = [take_apart(item) for item in items]
    if len({len(tensors) for tensors, _ in parts}) > 1:
        raise Error(f"Batches with {sorted({len(tensors) for tensors, _ in parts})} tensors cannot be joined: expected the same structure.")
    check_joinable(parts[0][1])
    joined = [torch.cat([tensor if tensor.dim() else tensor[None] for tensor in same]) for same in zip(*(tensors for tensors, _ in parts))]
    return put_together(parts[0][1], joined)


def check_joinable(skeleton: Any) -> None:
    """`Error` for a value beside the tensors, which would belong to one of several batches only."""

    def visit(value: Any) -> Any:
        if value is not None and not isinstance(value, (_Place, _Custom, dict, list, tuple)):
            raise Error(
                f"Batches are joined tensor by tensor, got {value!r} in one: return tensors, or a type with a registerCustomArgParser."
            )
        return _map(visit, value)

    visit(skeleton)


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same container with the function's results in it; what is no container as it is."""
    if isinstance(value, dict):
        if type(value) is dict:
            return {key: function(part) for key, part in value.items()}
        changed = copy.copy(value)  # keeps what a subclass has beside its entries
        for key, part in value.items():
            changed[key] = function(part)
        return changed
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[function(part) for part in value])
    return type(value)(function(part) for part in value) if isinstance(value, (list, tuple)) else value


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
