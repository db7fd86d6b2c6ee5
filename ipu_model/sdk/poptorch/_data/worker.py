"""The process behind an AsynchronousDataAccessor.

It sends its `Slots` of shared memory, `Item`s whose tensors are in a slot, and an `End` after every epoch. It receives numbers: an epoch
to begin (which ends the present one), or a slot that is free again as -1 - slot. When the pipe closes it ends.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

import torch
import torch.multiprocessing

from ipu_model.runtime.structures import parsers

from .items import as_lists, put_together, take_apart
from .rebatching import rebatch


@dataclass(frozen=True)
class Settings:
    """What the process needs to know."""

    buffer_size: int
    loads_indefinitely: bool
    rebatched_size: Optional[int]
    drop_last: bool
    seed: int
    sharing: Optional[str]
    parsers: Dict[type, Any]  # of the program's own types


@dataclass
class Item:
    """One item: its tensors are the first rows of a slot's, or travel with it where their shapes differ from the first item's.

    `rows` has the number of rows for each tensor of the slot, None for one without dimensions.
    """

    epoch: int
    slot: Optional[int]
    rows: List[Optional[int]]
    tensors: List[torch.Tensor]
    skeleton: Any

    def restore(self, slots: Sequence[Sequence[torch.Tensor]]) -> Any:
        """The item with its tensors."""
        if self.slot is None:
            return put_together(self.skeleton, self.tensors)
        stored = zip(self.rows, slots[self.slot])
        return put_together(self.skeleton, [tensor if rows is None else tensor[:rows] for rows, tensor in stored])


@dataclass
class End:
    """The end of an epoch."""

    epoch: int


@dataclass
class Slots:
    """The ring of shared buffers, made when the first item shows what they hold; sent once."""

    buffers: List[List[torch.Tensor]]


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
    parsers.update(settings.parsers)
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
        while True:
            try:
                if self._epoch >= 0:
                    self._load_epoch()
                else:
                    self._wait()
            except _NextEpoch:
                pass

    def _load_epoch(self) -> None:
        for item in self._items():
            self._send(item)
        self._connection.send(End(self._epoch))
        if not self._settings.loads_indefinitely:
            self._wait()
        self._epoch += 1

    def _wait(self) -> None:
        """Take numbers until one begins an epoch."""
        while True:
            self._take_number(wait=True)

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
                self._epoch = number
                raise _NextEpoch

    def _send(self, item: Any) -> None:
        tensors, skeleton = take_apart(as_lists(item))
        if not self._slots and tensors:
            self._slots = [[torch.empty_like(t).share_memory_() for t in tensors] for _ in range(self._settings.buffer_size)]
            self._connection.send(Slots(self._slots))
        self._take_number(wait=False)
        if not self._fits(tensors):
            self._connection.send(Item(self._epoch, None, [], tensors, skeleton))
            return
        while not self._free:
            self._take_number(wait=True)
        slot = self._free.pop(0)
        for stored, tensor in zip(self._slots[slot], tensors):
            (stored[: len(tensor)] if tensor.dim() else stored).copy_(tensor)
        rows = [len(tensor) if tensor.dim() else None for tensor in tensors]
        self._connection.send(Item(self._epoch, slot, rows, [], skeleton))

    def _fits(self, tensors: Sequence[torch.Tensor]) -> bool:
        stored = self._slots[0] if self._slots else []
        return len(stored) == len(tensors) and all(
            a.dtype == b.dtype and a.shape[1:] == b.shape[1:] and a.dim() == b.dim() and (not a.dim() or len(b) <= len(a))
            for a, b in zip(stored, tensors)
        )
