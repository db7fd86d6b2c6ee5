"""`poptorch.AsynchronousDataAccessor`: another process loads ahead into a ring of shared buffers."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Any, Iterator, List, Optional, Protocol, runtime_checkable

import torch
import torch.multiprocessing

from ipu_model.runtime.errors import Error
from ipu_model.runtime.structures import parsers

from ..enums import SharingStrategy
from .sharing import CONTEXTS, end_if_bootstrapping, starting_advice
from .worker import End, Failure, Item, Settings, Slots, serve

_running: weakref.WeakSet[AsynchronousDataAccessor] = weakref.WeakSet()


@runtime_checkable
class CombinedBatchLoader(Protocol):
    """What a poptorch.DataLoader tells an accessor."""

    has_accessor: bool
    drops_last_combined: bool
    ends_short: bool  # with a smaller batch, which the ring of buffers has no room for without rebatching


class AsynchronousDataAccessor:
    """Iterates over a dataset, or a DataLoader, that another process reads ahead.

    Tensors of an item live in one of `buffer_size` shared buffers and are overwritten later: clone what is kept past the next item.
    Lists and tuples come as lists, dictionaries as dictionaries.

    Args:
        miss_sleep_time_in_ms: how long one wait for an item lasts before the process is looked after.
        load_indefinitely: begin the next epoch before it is asked for.
        early_preload: begin before the first epoch is asked for.
        sharing_strategy: how the process starts and shares memory.
        rebatched_size: join what the dataset yields into batches of this size.
    """

    def __init__(
        self,
        dataset: Any,
        buffer_size: int = 3,
        miss_sleep_time_in_ms: float = 0.1,
        load_indefinitely: bool = True,
        early_preload: bool = False,
        sharing_strategy: SharingStrategy = SharingStrategy.ForkServer,
        rebatched_size: Optional[int] = None,
    ) -> None:
        self._connection: Any = None
        self._process: Any = None
        drop_last = _check_dataset(dataset, rebatched_size)
        assert buffer_size >= 1, f"buffer_size must be at least 1, got {buffer_size!r}"
        assert rebatched_size is None or rebatched_size > 1, f"rebatched_size must be above 1, got {rebatched_size!r}"
        self.rebatched_size = rebatched_size
        self._dataset = dataset
        self._poll_seconds = max(miss_sleep_time_in_ms, 0.01) / 1000
        self._slots: List[List[torch.Tensor]] = []
        self._held: Optional[int] = None
        self._epoch = -1  # the epoch under way, or the last one
        self._is_epoch_over = True
        self._loads_indefinitely = load_indefinitely
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        sharing = "file_system" if sharing_strategy == SharingStrategy.FileSystem else None
        settings = Settings(buffer_size, load_indefinitely, rebatched_size, drop_last, seed, sharing, dict(parsers))
        self._strategy = SharingStrategy(sharing_strategy)
        self._start(dataset, settings)
        if early_preload:
            self._connection.send(0)
        self._is_preloading = early_preload

    def _start(self, dataset: Any, settings: Settings) -> None:
        context: Any = torch.multiprocessing.get_context(CONTEXTS[self._strategy])
        self._connection, theirs = context.Pipe()
        # Not a daemon: it may have loader workers of its own. It ends when its pipe does, or with `terminate`.
        self._process = context.Process(target=serve, args=(dataset, theirs, self._connection, settings), daemon=False)
        try:
            self._process.start()
        except Exception as error:  # noqa: BLE001  whatever cannot be sent to a process
            self._connection.close()
            self._connection = None
            end_if_bootstrapping(error)
            raise Error(f"The worker thread failed to start: {error}{starting_advice(self._strategy)}") from error
        finally:
            theirs.close()
        _running.add(self)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        if self._connection is None:
            raise Error("The data accessor has been terminated.")
        self._release()
        is_warm = self._is_epoch_over and (self._loads_indefinitely and self._epoch >= 0 or self._is_preloading)
        self._epoch += 1
        self._is_preloading = False
        self._is_epoch_over = False
        if not is_warm:
            self._send(self._epoch)
        return self

    def __next__(self) -> Any:
        if self._is_epoch_over:
            raise StopIteration
        self._release()
        while True:
            message = self._receive()
            if isinstance(message, Failure):
                self.terminate()
                raise Error(f"The worker thread failed to start, or to load an item: {message.text}")
            if isinstance(message, Slots):
                self._slots = message.buffers
            elif isinstance(message, Item) and message.epoch == self._epoch:
                self._held = message.slot
                return message.restore(self._slots)
            elif isinstance(message, End) and message.epoch == self._epoch:
                self._is_epoch_over = True
                raise StopIteration
            elif isinstance(message, Item) and message.slot is not None:
                self._send(-1 - message.slot)  # of an epoch that was left early

    def _release(self) -> None:
        if self._held is not None:
            self._send(-1 - self._held)
            self._held = None

    def _send(self, number: int) -> None:
        """An epoch to begin, or a free slot as -1 - slot."""
        with contextlib.suppress(BrokenPipeError):  # `_receive` tells what happened
            self._connection.send(number)

    def _receive(self) -> Any:
        try:
            while not self._connection.poll(self._poll_seconds):
                if not self._process.is_alive() and not self._connection.poll():
                    raise EOFError
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self.terminate()
            advice = starting_advice(self._strategy) if not self._slots else ""
            raise Error(f"The worker thread failed to start, or was stopped (exit code {self._process.exitcode}).{advice}") from error

    def terminate(self) -> None:
        """Stop the process."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        self._is_epoch_over = True
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(timeout=5)
        _running.discard(self)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.terminate()


def _check_dataset(dataset: Any, rebatched_size: Optional[int]) -> bool:
    """What drop_last means for the last short batch; errors for a loader that cannot be read by another process."""
    if not isinstance(dataset, CombinedBatchLoader):
        return False
    if dataset.has_accessor:
        raise Error("The DataLoader already has an accessor: iterate over it, or make it with mode=DataLoaderMode.Sync.")
    is_cut = dataset.ends_short and rebatched_size is None
    assert not is_cut, "a DataLoader with drop_last=False ends with a smaller batch: pass rebatched_size"
    return dataset.drops_last_combined


@atexit.register
def _terminate_all() -> None:
    """Before multiprocessing waits for its children."""
    for accessor in list(_running):
        accessor.terminate()
