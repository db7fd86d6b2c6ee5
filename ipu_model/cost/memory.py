"""Memory of one IPU, in bytes for each tile: what always lives, what waits for the backward pass, and the worst point in between."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, List, Optional, Sequence, Tuple

from ipu_model.program.ops import Op, Program

from . import assumptions as assumed
from .hardware import Ipu
from .plan import plan
from .settings import Settings


@dataclass(frozen=True)
class Memory:
    """Bytes per tile by kind, at the worst point of the schedule."""

    weights: float = 0.0
    optimizer_state: float = 0.0
    accumulators: float = 0.0
    stashes: float = 0.0
    activations: float = 0.0
    temporaries: float = 0.0
    code: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.by_kind().values())

    def by_kind(self) -> Dict[str, float]:
        """Bytes by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def stage_memory(program: Program, stage: int, settings: Settings, ipu: Ipu, num_steps: float, num_stages: Optional[int] = None) -> Memory:
    """Memory of the IPU that runs a stage of `num_stages` (default: the program's).

    `num_steps` is the number of its compute sets, each of which is code.
    """
    tiles = ipu.tiles
    variables = [variable for variable in program.variables if program.stage_of_block[variable.block] == stage]
    trained = sum(variable.tensor.elements for variable in variables if variable.is_trained) if program.is_training else 0
    state = 0.0 if settings.is_optimizer_off_chip else float(trained * settings.optimizer_state_bytes)
    if settings.is_optimizer_sharded:
        state /= settings.replication_factor
    has_accumulator = settings.has_accumulator and settings.gradient_accumulation > 1
    ops = program.ops_of_stage(stage)
    live, temporary = _worst_point(ops, settings, ipu)
    if program.is_training:
        live, temporary = max((live, temporary), (_kept_bytes(ops, settings), _largest_temporary(ops, settings, ipu)), key=sum)
    return Memory(
        weights=sum(variable.tensor.bytes for variable in variables) / tiles,
        optimizer_state=state / tiles,
        accumulators=trained * settings.accumulator_bytes / tiles if has_accumulator else 0.0,
        stashes=_stash_bytes(program, stage, num_stages or program.num_stages, settings) / tiles,
        activations=live / tiles,
        temporaries=temporary / tiles,
        code=assumed.ASSUMED_CODE_BYTES + assumed.ASSUMED_CODE_BYTES_PER_STEP * num_steps,
    )


def temporary_bytes(op: Op, settings: Settings, ipu: Ipu) -> float:
    """What an operation needs beside its inputs and outputs, over all tiles.

    A convolution rearranges its input and output, within the available memory proportion; a norm keeps the centred values.
    """
    if op.kind in ("conv", "matmul"):
        return plan(op, settings, ipu).temporary_bytes
    if op.kind == "norm" and op.name != "folded_batch_norm":
        return float(op.output.bytes)
    return 0.0


def _lifetimes(ops: Sequence[Op]) -> Tuple[Dict[int, int], Dict[int, int]]:
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


def _worst_point(ops: Sequence[Op], settings: Settings, ipu: Ipu) -> Tuple[float, float]:
    """(live, temporary) bytes of the forward pass where their sum is largest, when nothing is kept for a backward pass."""
    ops = [op for op in ops if not op.is_once_per_update]
    last, size = _lifetimes(ops)
    live: Dict[int, int] = {}
    worst = (0.0, 0.0)
    for position, op in enumerate(ops):
        for number in op.reads:
            live.setdefault(number, size[number])
        in_place = _runs_in_place(op, last, position)
        if not in_place:
            live[op.writes] = size[op.writes]
        here = (float(sum(live.values())), temporary_bytes(op, settings, ipu))
        worst = max(worst, here, key=sum)
        for number in op.reads:
            if last[number] <= position:
                live.pop(number, None)
        live[op.writes] = size[op.writes]
        if last[op.writes] <= position:
            live.pop(op.writes, None)
    return worst


def _runs_in_place(op: Op, last: Dict[int, int], position: int) -> bool:
    """Whether the result takes the place of an input of its size that nobody reads later."""
    is_mapped = op.kind == "elementwise" or op.name == "folded_batch_norm"
    return is_mapped and any(last[number] <= position and tensor.bytes == op.output.bytes for number, tensor in zip(op.reads, op.inputs))


def _kept_bytes(ops: Sequence[Op], settings: Settings) -> float:
    """Bytes at the start of a stage's backward pass, when all that it reads is there.

    A stage that is recomputed piece by piece holds the boundaries of the pieces and the inside of the largest.
    """
    whole = float(sum(stored_bytes(ops)))
    return min(whole, _recomputed_in_pieces(ops)) if settings.is_recomputed else whole


def _largest_temporary(ops: Sequence[Op], settings: Settings, ipu: Ipu) -> float:
    return max((temporary_bytes(op, settings, ipu) for op in ops if not op.is_once_per_update), default=0.0)


_NUMBERS_OF_PIECES = (2, 4, 8, 16, 32)


def _recomputed_in_pieces(ops: Sequence[Op]) -> float:
    """Least bytes over numbers of pieces of equal length: what crosses the cuts, and what the largest piece stores."""
    ops = [op for op in ops if not op.is_once_per_update]
    crossing = _crossing_bytes(ops)
    best = float("inf")
    for pieces in (number for number in _NUMBERS_OF_PIECES if number <= len(ops)):
        size = -(-len(ops) // pieces)
        cuts = [min(range(max(end - size // 4, 1), end + 1), key=crossing.__getitem__) for end in range(size, len(ops), size)]
        bounds = [0, *cuts, len(ops)]
        inside = max(sum(stored_bytes(ops[begin:end])) for begin, end in zip(bounds[:-1], bounds[1:]))
        best = min(best, inside + sum(crossing[cut] for cut in cuts))
    return best


def _crossing_bytes(ops: Sequence[Op]) -> List[int]:
    """Bytes of the tensors made before each position and read from it on."""
    last, size = _lifetimes(ops)
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


def boundary_bytes(program: Program, stage: int) -> int:
    """Bytes of one micro batch that a stage takes from those before it."""
    earlier = {op.writes for op in program.ops if program.stage_of_block[op.block] < stage and not op.is_once_per_update}
    taken: Dict[int, int] = {}
    for op in program.ops_of_stage(stage):
        for number, tensor in zip(op.reads, op.inputs):
            if number in earlier:
                taken[number] = max(taken.get(number, 0), tensor.bytes)
    return sum(taken.values())


def _stash_bytes(program: Program, stage: int, num_stages: int, settings: Settings) -> float:
    """What waits for the backward passes of micro batches under way: 2 (S - stage) - 1 of them in a pipeline of S stages."""
    ops = program.ops_of_stage(stage)
    if not program.is_training or settings.schedule == "sequential" or num_stages == 1 or not any(op.has_backward for op in ops):
        return 0.0
    waiting = 2 * (num_stages - stage - 1)
    held = boundary_bytes(program, stage) if settings.is_recomputed else sum(stored_bytes(ops))
    return float(waiting * (held or sum(tensor.bytes for tensor in program.inputs)))


def liveness(program: Program, stage: int, memory: Memory, settings: Settings, ipu: Ipu) -> List[float]:
    """Bytes per tile of a stage while it runs one micro batch: after each operation forward, then backward.

    Before the first it holds what always lives and what waits for backward passes. Forward passes of a recomputed stage keep what later
    operations read; others keep what the backward pass will read. The backward pass begins with all of that and gives it up.
    """
    always = memory.weights + memory.optimizer_state + memory.accumulators + memory.code + memory.stashes
    ops = [op for op in program.ops_of_stage(stage) if not op.is_once_per_update]
    crossing = _crossing_bytes(ops)[: len(ops) + 1]
    if not program.is_training:
        return [always + value / ipu.tiles for value in crossing]
    stored = [0.0]
    for position in range(len(ops)):
        stored.append(stored[-1] + sum(stored_bytes(ops[position : position + 1])))
    scale = _kept_bytes(ops, settings) / stored[-1] / ipu.tiles if stored[-1] else 0.0  # a tensor with two readers is stored once
    backward = [always + value * scale for value in reversed(stored)]
    forward = [
        value / ipu.tiles if settings.is_recomputed else max(value / ipu.tiles, kept * scale) for value, kept in zip(crossing, stored)
    ]
    return [always + value for value in forward] + backward
