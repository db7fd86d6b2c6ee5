"""Slices whose position is a tensor: the size is fixed while capturing, the position is read on the device."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch

from ..errors import Error
from .host_tensors import is_host_tensor

_ADD = {torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__}
_SUBTRACT = {torch.sub, torch.Tensor.sub, torch.Tensor.__sub__}


class Offsets:
    """Which tensors are another tensor plus a constant: from that follows the size of `x[start:start + 3]`."""

    def __init__(self) -> None:
        self._origin: Dict[int, Tuple[torch.Tensor, int]] = {}
        self._kept: List[torch.Tensor] = []  # keeps ids unique

    def follow(self, func: Any, args: Tuple[Any, ...], result: Any) -> None:
        """Note `result = tensor + constant`."""
        if func not in _ADD | _SUBTRACT or len(args) < 2 or not isinstance(args[1], int) or not isinstance(args[0], torch.Tensor):
            return
        base, offset = self.origin(args[0])
        self._origin[id(result)] = (base, offset - args[1] if func in _SUBTRACT else offset + args[1])
        self._kept.append(result)

    def origin(self, tensor: torch.Tensor) -> Tuple[torch.Tensor, int]:
        """(base, offset) of a tensor; itself and 0 where nothing is known."""
        return self._origin.get(id(tensor), (tensor, 0))


def with_constant_bounds(index: Any) -> Any:
    """An index with numbers in place of tensors on the CPU as bounds of slices."""
    if isinstance(index, tuple):
        return tuple(with_constant_bounds(part) for part in index)
    if not isinstance(index, slice):
        return index
    return slice(*[int(bound) if is_host_tensor(bound) else bound for bound in (index.start, index.stop, index.step)])


def is_dynamic(index: Any) -> bool:
    """Whether an index has a slice with a tensor as a bound."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, slice) and (_is_tensor(part.start) or _is_tensor(part.stop)) for part in parts)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not is_host_tensor(value)


def dynamic_getitem(tensor: torch.Tensor, index: Any, offsets: Offsets) -> torch.Tensor:
    """`tensor[index]` with tensors as bounds of slices."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis or part is None for part in parts):
        raise Error("A slice with tensor bounds cannot stand beside ... or None: write the other dimensions as ':'.")
    for dim, part in enumerate(parts):
        if isinstance(part, slice) and (_is_tensor(part.start) or _is_tensor(part.stop)):
            if not (_is_tensor(part.start) and _is_tensor(part.stop)):
                raise Error("The start and end of a slice must both be tensors computed from one another: x[start:start + 2].")
            (start, first), (stop, last) = offsets.origin(part.start), offsets.origin(part.stop)
            if start is not stop:
                raise Error("The start and end of a slice must differ by a constant: compute one from the other, x[start:start + 2].")
            tensor = take_slice(tensor, dim, part.start, last - first, part.step or 1)
            parts[dim] = slice(None)
    return tensor[tuple(parts)]


def take_slice(tensor: torch.Tensor, dim: int, start: torch.Tensor, size: int, step: int) -> torch.Tensor:
    """`size` elements along a dimension from `start`, every `step`-th of them.

    Raises:
        Error: an empty slice, or a size that does not divide the dimension.
    """
    if size <= 0:
        raise Error(f"Taking a slice of size {size} is not possible: the end must be behind the start.")
    length = tensor.shape[dim]
    if length % size:
        raise Error(f"The size of the sliced tensor ({length}) must be a multiple of the slice size ({size}).")
    positions = start.reshape(1).to(torch.int64) + torch.arange(0, size, step, device=tensor.device)
    return tensor.index_select(dim, positions)
