"""What a compiler takes out of a traced program before it costs anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence, Set, Tuple

from .ops import Op, Program, Tensor

_UNFILLED = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


def simplified(program: Program) -> Program:
    """Without casts around norms, which keep float32 statistics of half tensors by themselves, and without unfilled tensors.

    What read a removed result reads what it was made from, so that each operand is still written by a record, or is a source.
    """
    return replace(program, ops=_without_casts_around_norms(_without_unfilled(program.ops)))


def _without_unfilled(ops: Sequence[Op]) -> Tuple[Op, ...]:
    """Unfilled tensors are no work, and reading one before something was written into it reads nothing."""
    unfilled: Set[int] = set()
    kept: List[Op] = []
    for op in ops:
        if op.name in _UNFILLED:
            unfilled.add(op.writes)
            continue
        read = [(number, tensor) for number, tensor in zip(op.reads, op.inputs) if number not in unfilled]
        if len(read) < len(op.reads):
            op = replace(op, reads=tuple(number for number, _ in read), inputs=tuple(tensor for _, tensor in read))
        unfilled.discard(op.writes)
        kept.append(op)
    return tuple(kept)


@dataclass(frozen=True)
class _Uses:
    """Positions at which each tensor is read and written."""

    readers: Dict[int, List[int]]
    writers: Dict[int, List[int]]

    @classmethod
    def of(cls, ops: Sequence[Op]) -> _Uses:
        uses = cls({}, {})
        for position, op in enumerate(ops):
            uses.writers.setdefault(op.writes, []).append(position)
            for number in op.reads:
                uses.readers.setdefault(number, []).append(position)
        return uses


def _without_casts_around_norms(ops: Sequence[Op]) -> Tuple[Op, ...]:
    """A norm of a half tensor whose result is only read in half again takes and gives half."""
    uses = _Uses.of(ops)
    changed: Dict[int, Op] = {}  # by position
    removed: Set[int] = set()
    source_of: Dict[int, int] = {}  # number of a removed cast's result -> number that holds the values
    for position, norm in enumerate(ops):
        if norm.kind != "norm" or len(norm.reads) != 1:
            continue
        widening = _widening_cast(ops, uses, position)
        narrowing = [reader for reader in uses.readers.get(norm.writes, []) if _is_cast_to(ops[reader], "float16", norm.output)]
        if widening is None or not narrowing or len(narrowing) < len(uses.readers[norm.writes]):
            continue
        if len(uses.writers[norm.writes]) > 1 or (
            len(narrowing) > 1 and any(len(uses.writers[ops[cast].writes]) > 1 for cast in narrowing)
        ):
            continue  # written over in place, and still read as it was
        if uses.readers[ops[widening].writes] == [position]:
            removed.add(widening)
        removed.update(narrowing)
        source_of.update({ops[cast].writes: norm.writes for cast in narrowing})
        changed[position] = replace(norm, reads=ops[widening].reads, inputs=(_half(norm.inputs[0]),), output=_half(norm.output))
    kept = [changed.get(position, op) for position, op in enumerate(ops) if position not in removed]
    return tuple(
        replace(op, reads=tuple(source_of.get(number, number) for number in op.reads), writes=source_of.get(op.writes, op.writes))
        for op in kept
    )


def _widening_cast(ops: Sequence[Op], uses: _Uses, norm: int) -> Optional[int]:
    """Position of the cast from half that made a norm's input, where the half tensor still is what it was when the norm reads it."""
    number = ops[norm].reads[0]
    writers = uses.writers.get(number, [])
    if len(writers) != 1 or not _is_cast_to(ops[writers[0]], "float32", ops[norm].inputs[0]):
        return None
    cast = writers[0]
    is_half = bool(ops[cast].inputs) and ops[cast].inputs[0].dtype == "float16"
    is_overwritten = any(cast < position < norm for position in uses.writers.get(ops[cast].reads[0] if is_half else -1, []))
    return cast if is_half and not is_overwritten else None


def _is_cast_to(op: Op, dtype: str, tensor: Tensor) -> bool:
    return op.kind == "cast" and op.output.dtype == dtype and op.output.elements == tensor.elements


def _half(tensor: Tensor) -> Tensor:
    return Tensor(tensor.shape, "float16")
