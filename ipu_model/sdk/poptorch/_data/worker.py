"""The process behind an AsynchronousDataAccessor.

It sends `Item`s, the tensors in a slot of shared memory, and an `End` after every epoch. It receives numbers: an epoch to begin (which ends
the present one), or a slot that is free again as -1 - slot. When the pipe closes it ends.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
import torch.multiprocessing
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Settings:
    """What the process needs to know."""

    buffer_size: int
    loads_indefinitely: bool
    rebatched_size: Optional[int]
    drop_last: bool
    seed: int
    sharing: Optional[str]


@dataclass
class Item:
    """One item: its tensors are the first rows of a slot's, or travel with it where their shapes differ from the first item's."""

    epoch: int
    slot: Optional[int]
    rows: List[Optional[int]]
    others: List[Any]
    structure: Any
    slots: Optional[List[List[torch.Tensor]]] = None

    def restore(self, slots: Sequence[Sequence[torch.Tensor]]) -> Any:
        """The item with its tensors."""
        stored = iter(slots[self.slot]) if self.slot is not None else iter(())
        leaves = [
            other if rows is None else next(stored)[:rows] if rows >= 0 else next(stored) for rows, other in zip(self.rows, self.others)
        ]
        return pytree.tree_unflatten(leaves, self.structure)


@dataclass
class End:
    """The end of an epoch."""

    epoch: int
    slots: None = None


@dataclass
class Failure:
    """What went wrong in the dataset."""

    text: str


class _NextEpoch(Exception):
    """The present epoch is to be left."""


def serve(dataset: Any, connection: Any, other_end: Any, settings: Settings) -> None:
    """Load items until the pipe closes."""
    other_end.close()  # a forked process holds both ends, and would never see its own close
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to handle
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    if settings.sharing is not None:
        torch.multiprocessing.set_sharing_strategy(settings.sharing)
    try:
        _Loader(dataset, connection, settings).run()
    except (EOFError, ConnectionError):
        pass
    except Exception as error:  # noqa: BLE001  the dataset is the user's
        with contextlib.suppress(EOFError, ConnectionError):
            connection.send(Failure(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
            while True:  # closing a pipe with unread numbers would take the message with it
                connection.recv()
    connection.close()
    sys.stdout.flush()


class _Loader:
    """The loop of the process."""

    def __init__(self, dataset: Any, connection: Any, settings: Settings) -> None:
        self._dataset, self._connection, self._settings = dataset, connection, settings
        self._epoch = -1
        self._free = list(range(settings.buffer_size))
        self._slots: List[List[torch.Tensor]] = []

    def run(self) -> None:
        """Epoch after epoch."""
        while self._epoch < 0:
            self._take_number(wait=True)
        while True:
            try:
                for item in self._items():
                    self._send(item)
                self._connection.send(End(self._epoch))
                if self._settings.loads_indefinitely:
                    self._epoch += 1
                    continue
                while True:
                    self._take_number(wait=True)
            except _NextEpoch:
                pass

    def _items(self) -> Iterator[Any]:
        dataset, size = self._dataset, self._settings.rebatched_size
        is_map = not hasattr(dataset, "__iter__") and hasattr(dataset, "__len__")
        items = (dataset[index] for index in range(len(dataset))) if is_map else iter(dataset)
        return items if size is None else rebatch(items, size, self._settings.drop_last)

    def _take_number(self, wait: bool) -> None:
        while wait or self._connection.poll():
            number = self._connection.recv()
            wait = False
            if number < 0:
                self._free.append(-1 - number)
            elif number > self._epoch:
                is_first = self._epoch < 0
                self._epoch = number
                if not is_first:
                    raise _NextEpoch

    def _send(self, item: Any) -> None:
        leaves, structure = pytree.tree_flatten(as_lists(item))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        fresh = None
        if not self._slots and tensors:
            self._slots = fresh = [[torch.empty_like(t).share_memory_() for t in tensors] for _ in range(self._settings.buffer_size)]
        self._take_number(wait=False)
        if not self._fits(tensors):
            self._connection.send(Item(self._epoch, None, [None] * len(leaves), leaves, structure, fresh))
            return
        while not self._free:
            self._take_number(wait=True)
        slot = self._free.pop(0)
        for stored, tensor in zip(self._slots[slot], tensors):
            (stored[: len(tensor)] if tensor.dim() else stored).copy_(tensor)
        rows = [(len(leaf) if leaf.dim() else -1) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
        others = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._connection.send(Item(self._epoch, slot, rows, others, structure, fresh))

    def _fits(self, tensors: Sequence[torch.Tensor]) -> bool:
        stored = self._slots[0] if self._slots else []
        return len(stored) == len(tensors) and all(
            a.dtype == b.dtype and a.shape[1:] == b.shape[1:] and a.dim() == b.dim() and (not a.dim() or len(b) <= len(a))
            for a, b in zip(stored, tensors)
        )


def as_lists(item: Any) -> Any:
    """An item with lists in place of tuples."""
    if isinstance(item, dict):
        return {key: as_lists(value) for key, value in item.items()}
    return [as_lists(value) for value in item] if isinstance(item, (list, tuple)) else item


def rebatch(items: Any, size: int, drop_last: bool) -> Iterator[Any]:
    """Batches of a size out of batches of any sizes; the last may be smaller."""
    pending: List[Tuple[Any, List[torch.Tensor]]] = []
    count = 0
    for item in items:
        leaves, structure = pytree.tree_flatten(as_lists(item))
        pending.append((structure, leaves))
        count += len(leaves[0])
        while count >= size:
            yield _take(pending, size)
            count -= size
    if count and not drop_last:
        yield _take(pending, count)


def _take(pending: List[Tuple[Any, List[torch.Tensor]]], size: int) -> Any:
    """The first rows of the pending batches, which lose them."""
    structure = pending[0][0]
    parts: List[List[torch.Tensor]] = []
    while size:
        _, leaves = pending.pop(0)
        taken = min(size, len(leaves[0]))
        parts.append([leaf[:taken] for leaf in leaves])
        if taken < len(leaves[0]):
            pending.insert(0, (structure, [leaf[taken:] for leaf in leaves]))
        size -= taken
    return pytree.tree_unflatten([torch.cat(leaves) for leaves in zip(*parts)], structure)
