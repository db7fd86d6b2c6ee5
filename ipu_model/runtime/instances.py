"""The processes that run one program together: their collectives, in one fixed order, and what is said when one is lost."""

from __future__ import annotations

import atexit
import collections
import contextlib
import datetime
import os
import socket
import threading
import time
from typing import Any, Deque, Iterable, Iterator, List, Optional, Sequence
from urllib.parse import SplitResult, unquote, urlsplit

import torch
from torch import distributed

from .errors import Error

DEFAULT_TIMEOUT_SECONDS = 300.0
_NOTICE_SECONDS = 1.0  # an instance that waits longer says so in the store, so that those that hang can be named
_END_SECONDS = 5.0  # for which a process waits at its end until a notice is written


class LostInstanceError(Error):
    """Another instance has ended, or does not come."""


class Instances:
    """All instances of a program; `index` is this one's number. Collectives are called by all of them, in the same order."""

    def __init__(self, index: int, count: int, store: distributed.Store, timeout_seconds: float) -> None:
        self.index, self.count = index, count
        self._store, self._timeout_seconds = store, timeout_seconds
        self._sequence = 0
        self._entered: Optional[float] = None
        # gloo's threads let go of a collective's tensors shortly after it: were they the last to do so they would need Python, which may
        # be ending by then.
        self._kept: Deque[List[torch.Tensor]] = collections.deque(maxlen=2)
        store.set(f"name/{index}", f"instance {index} (host {socket.gethostname()}, process {os.getpid()})")
        store.set(f"waiting/{index}", "0")
        self._is_over = threading.Event()
        self._notices = threading.Thread(target=self._notice_waiting, daemon=True)
        self._notices.start()
        atexit.register(self._end_notices)

    # ---- collectives

    def barrier(self) -> None:
        """Wait until all instances are here."""
        self.all_gather(torch.zeros(1))

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all instances, of one shape, joined along dimension 0 in the order of the instances."""
        own = tensor.detach().contiguous()
        gathered = [torch.empty_like(own) for _ in range(self.count)]
        self._kept.append([own, *gathered])
        with self.waiting():
            distributed.all_gather(gathered, own)
        return torch.cat(gathered)

    def all_reduce(self, tensor: torch.Tensor, is_mean: bool = False) -> torch.Tensor:
        """Sum or mean over the instances, added in their order."""
        total, *others = self.all_gather(tensor[None])
        for other in others:
            total = total + other
        return total / self.count if is_mean else total

    def broadcast(self, tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
        """The tensor of instance `root`; the others give one of the same shape and type."""
        result = tensor.detach().clone().contiguous()
        self._kept.append([result])
        with self.waiting():
            distributed.broadcast(result, src=root)
        return result

    def reduce_in_order(
        self, sizes: Sequence[int], buckets: Iterable[List[torch.Tensor]], divisor: float, device: torch.device
    ) -> List[torch.Tensor]:
        """Add up buckets over all instances, in one order, as they come.

        Each instance adds its parts, one after another, to what the instances before it have added; the last one divides by `divisor`
        and sends the result to all. So the result has the same bits as when one process adds all parts in a row. Buckets travel along
        the chain one behind the other. Call it inside of `waiting`.

        Args:
            sizes: elements of the buckets.
            buckets: for each bucket its parts, float32, one for each replica of this instance; the first becomes the result.
        """
        last = self.count - 1
        begun = [torch.empty(size, device=device) for size in sizes] if self.index else []
        arrivals = [distributed.irecv(partial, self.index - 1, tag=number) for number, partial in enumerate(begun)]
        departures: List[Any] = []
        totals: List[torch.Tensor] = []
        for number, (total, *following) in enumerate(buckets):
            if self.index:
                _wait(arrivals[number])
                torch.add(begun[number], total, out=total)
            for part in following:
                total.add_(part)
            totals.append(total)
            if self.index < last:
                departures.append(distributed.isend(total, self.index + 1, tag=number))
            elif divisor != 1:
                total.div_(divisor)
        for departure in departures:
            _wait(departure)
        self._kept.append(totals)
        for result in [distributed.broadcast(total, src=last, async_op=True) for total in totals]:
            _wait(result)
        return totals

    # ---- what is said when an instance is lost

    @contextlib.contextmanager
    def waiting(self, started: Optional[float] = None) -> Iterator[None]:
        """A collective: an error in it becomes LostInstanceError. `started` is when it began, by time.monotonic, if not now."""
        self._sequence += 1
        self._entered = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error, time.monotonic() - (started or self._entered)) from error
        finally:
            self._entered = None

    def _notice_waiting(self) -> None:
        noticed = 0
        while not self._is_over.wait(_NOTICE_SECONDS / 2):
            entered, sequence = self._entered, self._sequence
            if entered is not None and sequence > noticed and time.monotonic() - entered > _NOTICE_SECONDS:
                noticed = sequence
                with contextlib.suppress(RuntimeError):  # the store ends with the run
                    self._store.set(f"waiting/{self.index}", str(sequence))

    def _end_notices(self) -> None:
        """Before Python ends: a thread that is in the store by then would end the process with SIGABRT."""
        self._is_over.set()
        self._notices.join(timeout=_END_SECONDS)

    def _lost(self, error: RuntimeError, seconds: float) -> LostInstanceError:
        if seconds < 0.9 * self._timeout_seconds:
            _mark_as_consequence()
            return LostInstanceError("another instance has ended, so this one cannot go on.")
        try:
            missing = [self._text(f"name/{index}") for index in range(self.count) if index != self.index and not self._is_waiting(index)]
        except RuntimeError:
            missing = []
        who = " and ".join(missing) or "another instance"
        return LostInstanceError(
            f"{who} did not come within {self._timeout_seconds:g} s: it hangs, or needs longer (poprun --instance-timeout SECONDS)."
        )

    def _is_waiting(self, index: int) -> bool:
        return int(self._text(f"waiting/{index}")) >= self._sequence

    def _text(self, key: str) -> str:
        return self._store.get(key).decode()


def _wait(work: Any) -> None:
    if work is not None:  # irecv and isend give None to those outside of the group, which nobody is
        work.wait()


def _mark_as_consequence() -> None:
    """Tell poprun's instance that the failure is another instance's."""
    path = os.environ.get("IPU_MODEL_LOST_PEER_FILE")
    if path:
        with contextlib.suppress(OSError), open(path, "w"):
            pass


_joined: Optional[Instances] = None


def join(index: int, count: int) -> Instances:
    """The instances of this program, met once in a process.

    They meet where poprun says, or at torch.distributed's MASTER_ADDR and MASTER_PORT.

    Raises:
        Error: nobody says where, or the program has joined as another one.
    """
    global _joined
    if _joined is None:
        _joined = _meet(index, count)
    if (_joined.index, _joined.count) != (index, count):
        raise Error(f"this process is instance {_joined.index} of {_joined.count}, options.Distributed says {index} of {count}.")
    return _joined


def _meet(index: int, count: int) -> Instances:
    seconds = float(os.environ.get("IPU_MODEL_INSTANCE_TIMEOUT_SECONDS", DEFAULT_TIMEOUT_SECONDS))
    timeout = datetime.timedelta(seconds=seconds)
    place = _meeting_place()
    try:
        start = os.environ.get("IPU_MODEL_ROUND") or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # which of several
        store = distributed.PrefixStore(f"instances/{start}", _open_store(place, index, timeout))
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if os.environ.get("IPU_MODEL_DEVICE", "cpu").startswith("cuda") else "gloo"
            distributed.init_process_group(backend, store=store, rank=index, world_size=count, timeout=timeout)
    except RuntimeError as error:
        where = "" if place.scheme == "file" else f" at {place.hostname}:{place.port}"
        raise LostInstanceError(f"{count} instances did not meet{where} within {seconds:g} s: {error}") from error
    return Instances(index, count, store, seconds)


def _open_store(place: SplitResult, index: int, timeout: datetime.timedelta) -> distributed.Store:
    if place.scheme == "file":
        store: distributed.Store = distributed.FileStore(unquote(place.path), -1)
        store.set_timeout(timeout)
        return store
    # torchrun's agent has a server of its own at MASTER_PORT
    is_server = not place.username and index == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    server = distributed.TCPStore(str(place.hostname), int(place.port or 0), None, is_server, timeout, wait_for_workers=False)
    return distributed.PrefixStore(place.username, server) if place.username else server


def _meeting_place() -> SplitResult:
    """file:///PATH on one host, tcp://TOKEN@HOST:PORT between hosts; tcp://HOST:PORT for programs that poprun did not start."""
    if os.environ.get("IPU_MODEL_STORE"):
        return urlsplit(os.environ["IPU_MODEL_STORE"])
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        host = os.environ["MASTER_ADDR"]
        return urlsplit(f"tcp://{f'[{host}]' if ':' in host else host}:{os.environ['MASTER_PORT']}")
    raise Error(
        "options.Distributed has several processes, and nothing says where they meet: start them with "
        "python -m ipu_model.poprun --num-instances N --num-replicas R PROGRAM, or set MASTER_ADDR and MASTER_PORT."
    )
