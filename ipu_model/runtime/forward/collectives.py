"""Operations between replicas inside forward: each needs the values that all replicas have of one micro batch.

The replicas of a process take turns: each runs until it comes to such an operation, leaves its value, and goes on when all have come.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

import torch

from ..errors import Error, absent
from ..operators import define_operator
from .recording import current_recording

DOMAIN = "ai.graphcore"
_T = TypeVar("_T")
_place = threading.local()  # of a replica's thread: its meeting, and its number


class Meeting:
    """Runs one task for each replica, in turns.

    Args:
        count: of replicas.
        generator: the device's random numbers; each replica goes on where it stopped.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self._count, self._generator = count, generator
        self._turn = 0
        self._changed = threading.Condition()
        self._values: List[Dict[int, torch.Tensor]] = []  # by number of the operation: what the replicas have brought so far
        self._running = list(range(count))
        self._error: Optional[BaseException] = None

    def run(self, task: Callable[[int], _T]) -> List[_T]:
        """`task(replica)` of every replica, in their order."""
        results: Dict[int, _T] = {}
        threads = [threading.Thread(target=self._replica, args=(task, replica, results), daemon=True) for replica in range(self._count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return [results[replica] for replica in range(self._count)]

    def gather(self, replica: int, value: torch.Tensor) -> List[torch.Tensor]:
        """What every replica brings to an operation, in the order of the replicas."""
        number, _place.number = _place.number, _place.number + 1
        if number == len(self._values):
            self._values.append({})
        self._values[number][replica] = value
        state = self._generator.get_state()
        self._pass_on(replica)
        self._await_turn(replica)
        self._generator.set_state(state)
        brought = self._values[number]
        if len(brought) < self._count:
            raise Error("Not all replicas come to an operation between replicas: is it in a branch of poptorch.cond?")
        if replica == self._count - 1:  # the last to take them
            self._values[number] = {}
        return [brought[index] for index in range(self._count)]

    def _replica(self, task: Callable[[int], _T], replica: int, results: Dict[int, _T]) -> None:
        _place.meeting, _place.replica, _place.number = self, replica, 0
        try:
            self._await_turn(replica)
            with torch.no_grad():  # a thread begins with gradients on
                results[replica] = task(replica)
        except BaseException as error:  # noqa: BLE001  raised again by `run`
            self._error = self._error or error
        finally:
            self._pass_on(replica, is_done=True)

    def _pass_on(self, replica: int, is_done: bool = False) -> None:
        """Give the turn to the next replica that still runs."""
        with self._changed:
            following = [other for other in self._running if other > replica] or [other for other in self._running if other != replica]
            self._turn = following[0] if following else replica
            if is_done:
                self._running.remove(replica)
            self._changed.notify_all()

    def _await_turn(self, replica: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == replica or self._error is not None)
        if self._error is not None:
            raise self._error


def _collective(x: torch.Tensor, kind: str, count: int) -> torch.Tensor:
    """One of `_KINDS`; `count` is the number of replicas that it was compiled for, 0 for any."""
    if x.is_meta:
        return torch.empty(_shape(x, kind, count), dtype=x.dtype, device="meta")
    meeting, replica = getattr(_place, "meeting", None), getattr(_place, "replica", 0)
    values = meeting.gather(replica, x.clone()) if meeting is not None else [x]
    if count and count != len(values):
        raise Error(f"{kind}: the shape of example_outputs is that of {count} replicas, options.replicationFactor is {len(values)}.")
    if kind == _GATHER:
        return torch.stack(values)
    if kind == _EXCHANGE:
        return torch.stack([value[replica] for value in values])
    parts = [value.reshape(count, -1)[replica] for value in values] if kind == _SCATTER else values
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _shape(x: torch.Tensor, kind: str, count: int) -> Tuple[int, ...]:
    if kind == _GATHER:
        return (count, *x.shape)
    return (x.numel() // count,) if kind == _SCATTER else tuple(x.shape)


define_operator("collective(Tensor x, str kind, int count) -> Tensor", _collective)

_GATHER, _REDUCE, _EXCHANGE, _SCATTER = "ReplicatedAllGather", "ReplicatedAllReduce", "ReplicatedAllToAll", "ReplicatedReduceScatter"
_KINDS = (_GATHER, _REDUCE, _EXCHANGE, _SCATTER)
_BACKWARD = {_GATHER: _SCATTER, _REDUCE: _REDUCE, _EXCHANGE: _EXCHANGE, _SCATTER: _GATHER}


class _Collective(torch.autograd.Function):
    """A collective operation; the gradient of what all replicas' losses add up to is a collective operation too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kind: str, count: int) -> torch.Tensor:
        """The operation."""
        ctx.kind, ctx.count, ctx.shape = kind, count, x.shape
        return torch.ops.ipu_model.collective(x, kind, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The matching one."""
        return torch.ops.ipu_model.collective(gradients[0].contiguous(), _BACKWARD[ctx.kind], ctx.count).reshape(ctx.shape), None, None


def is_collective(name: str, domain: str) -> bool:
    """Whether a custom operator is an operation between replicas."""
    return domain == DOMAIN and name in _KINDS


def call_collective(
    name: str, inputs: Sequence[torch.Tensor], examples: Sequence[torch.Tensor], attributes: Mapping[str, Any]
) -> List[torch.Tensor]:
    """The operation on each input, in the shape of its example.

    Raises:
        Error: shapes that no number of replicas explains.
        NotImplementedError: attributes, which would choose another reduction than the sum over all replicas.
    """
    if attributes:
        raise absent(f"{name} with attributes {sorted(attributes)}", f"{name} without: over all replicas, sums")
    if len(inputs) != len(examples):
        raise Error(f"{name}: expected an example output for each of {len(inputs)} inputs, got {len(examples)}.")
    record = current_recording()
    if record is not None:
        record.has_collectives = True
    return [_call(name, value, example) for value, example in zip(inputs, examples)]


def _call(name: str, x: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    larger, smaller = (example, x) if name == _GATHER else (x, example)
    count = {_REDUCE: 0, _EXCHANGE: x.shape[0] if x.dim() else 0}.get(name, larger.numel() // max(smaller.numel(), 1))
    result = _Collective.apply(x, name, count)
    assert isinstance(result, torch.Tensor)
    if result.numel() != example.numel() or (name != _REDUCE and count == 0):
        raise Error(f"{name}: an input of shape {tuple(x.shape)} cannot give the example output's shape {tuple(example.shape)}.")
    return result.reshape(example.shape)
