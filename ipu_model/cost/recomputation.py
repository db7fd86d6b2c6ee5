"""Which part of a stage computes its forward pass again for the backward pass, and what that leaves to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program

from .settings import Settings

_NUMBERS_OF_PIECES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
_WANTED_SHARE = 0.5  # of what would be kept without recomputation: fewer pieces recompute less


@dataclass(frozen=True)
class Recomputation:
    """How a stage gets what its backward pass reads.

    Attributes:
        operations: how many of its first operations of a micro batch run again.
        kept_bytes: of activations when they are most, over all tiles: at the start of the backward pass of a stage, or of a piece.
    """

    operations: int
    kept_bytes: float


def micro_batch_ops(program: Program, stage: int) -> Tuple[Op, ...]:
    """Operations that a stage runs for each micro batch."""
    return tuple(op for op in program.ops_of_stage(stage) if not op.is_once_per_update)


def recomputation(program: Program, stage: int, settings: Settings) -> Recomputation:
    """Of a training program's stage.

    A pipeline stage is recomputed as a whole from its input; the last one is not, since its backward pass follows at once, and neither is
    a stage without a backward pass. A model on one stage is recomputed in pieces, of which the last is still there: in as few as halve what
    is kept, or else in those that keep least.
    """
    ops = micro_batch_ops(program, stage)
    stored = float(sum(stored_bytes(ops)))
    if not settings.is_recomputed or not any(op.has_backward for op in ops):
        return Recomputation(0, stored)
    if program.stages.number > 1:
        return Recomputation(len(ops) if stage < program.stages.number - 1 else 0, stored)
    in_pieces = [_in_pieces(ops, pieces) for pieces in _NUMBERS_OF_PIECES if pieces <= len(ops)]
    enough = [way for way in in_pieces if way.kept_bytes <= _WANTED_SHARE * stored]
    return enough[0] if enough else min((Recomputation(0, stored), *in_pieces), key=lambda way: way.kept_bytes)


def _in_pieces(ops: Sequence[Op], pieces: int) -> Recomputation:
    """Pieces of about equal length, each cut where little crosses.

    The backward pass of a piece begins with what it stores and the tensors that cross the cuts before it.
    """
    crossing = crossing_bytes(ops)
    size = -(-len(ops) // pieces)
    cuts = [min(range(max(end - size // 4, 1), end + 1), key=crossing.__getitem__) for end in range(size, len(ops), size)]
    checkpoints, kept = 0, 0
    for begin, end in zip((0, *cuts), (*cuts, len(ops))):
        checkpoints += crossing[begin] if begin else 0
        kept = max(kept, checkpoints + sum(stored_bytes(ops[begin:end])))
    return Recomputation(cuts[-1] if cuts else 0, float(kept))


def lifetimes(ops: Sequence[Op]) -> Tuple[Dict[int, int], Dict[int, int]]:
    """Position of the last reader, and size, of each tensor."""
    last: Dict[int, int] = {}
    size: Dict[int, int] = {}
    for position, op in enumerate(ops):
        for number, tensor in zip(op.reads, op.inputs):
            last[number] = position
            size[number] = max(size.get(number, 0), tensor.bytes)
        size[op.writes] = max(size.get(op.writes, 0), op.output.bytes)
        last.setdefault(op.writes, position)
    return last, size


def crossing_bytes(ops: Sequence[Op]) -> List[int]:
    """Bytes of the tensors made before each position and read from it on."""
    last, size = lifetimes(ops)
    change = [0] * (len(ops) + 2)
    first: Dict[int, int] = {}
    for position, op in enumerate(ops):
        first.setdefault(op.writes, position)
    for number, position in first.items():
        if last[number] > position:
            change[position + 1] += size[number]
            change[last[number] + 1] -= size[number]
    total, result = 0, []
    for value in change:
        total += value
        result.append(total)
    return result


def stored_bytes(ops: Sequence[Op]) -> List[int]:
    """Sizes of the tensors that the backward pass of these operations reads, each once.

    Products, convolutions and norms read their inputs; activations read theirs; sums, casts and reductions read none.
    """
    needed: Dict[int, int] = {}
    for op in ops:
        reads_inputs = op.kind in ("conv", "matmul", "norm") or (op.kind == "elementwise" and op.name not in ("add", "sub", "neg", "rsub"))
        if reads_inputs and op.has_backward:
            for number, tensor in zip(op.reads, op.inputs):
                needed[number] = max(needed.get(number, 0), tensor.bytes)
    return list(needed.values())
