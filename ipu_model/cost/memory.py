"""Memory of one IPU, in bytes for each tile: what always lives, what waits for the backward pass, and the worst point in between."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program

from . import assumptions as assumed
from .plan import plan
from .schedule import Slots
from .settings import Settings, Target


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

    @property
    def always_live(self) -> float:
        """What lives at any time: all but activations and temporaries."""
        return self.total - self.activations - self.temporaries

    def by_kind(self) -> Dict[str, float]:
        """Bytes by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def ipu_memory(stages: Sequence[Memory]) -> Memory:
    """Memory of an IPU that runs these stages: what always lives adds up, what lives during a pass is that of the worst of them."""
    worst = max(stages, key=lambda memory: memory.activations + memory.temporaries)
    always = {name: sum(memory.by_kind()[name] for memory in stages) for name in Memory().by_kind()}
    always["code"] -= (len(stages) - 1) * assumed.ASSUMED_CODE_BYTES
    return Memory(**{**always, "activations": worst.activations, "temporaries": worst.temporaries})


def stage_memory(program: Program, stage: int, settings: Settings, target: Target, num_steps: float) -> Memory:
    """Memory that a stage takes of the IPU that runs it.

    `num_steps` is the number of its compute sets, each of which is code.
    """
    tiles = target.tiles
    variables = [variable for variable in program.variables if program.stage_of(variable) == stage]
    trained = sum(variable.tensor.elements for variable in variables if variable.is_trained) if program.is_training else 0
    state = 0.0 if settings.is_optimizer_off_chip else trained * settings.optimizer.state_bytes
    if settings.is_optimizer_sharded:
        state /= settings.replication_factor
    has_sum = settings.gradient_accumulation > 1 and not settings.optimizer.is_sum_in_state
    ops = program.ops_of_stage(stage)
    live, temporary = _worst_point(ops, target)
    if program.is_training:
        live, temporary = max((live, temporary), (_kept_bytes(ops, settings), _largest_temporary(ops, target)), key=sum)
    return Memory(
        weights=sum(variable.tensor.bytes for variable in variables) / tiles,
        optimizer_state=state / tiles,
        accumulators=trained * settings.optimizer.gradient_bytes / tiles if has_sum else 0.0,
        stashes=_stash_bytes(program, stage, settings) / tiles,
        activations=live / tiles,
        temporaries=temporary / tiles,
        code=assumed.ASSUMED_CODE_BYTES + assumed.ASSUMED_CODE_BYTES_PER_STEP * num_steps,
    )


def temporary_bytes(op: Op, target: Target) -> float:
    """What an operation needs beside its inputs and outputs, over all tiles.

    A convolution rearranges its input and output, within the available memory proportion; a norm keeps the centred values.
    """
    if op.kind in ("conv", "matmul"):
        return plan(op, target).temporary_bytes
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


def _worst_point(ops: Sequence[Op], target: Target) -> Tuple[float, float]:
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
        here = (float(sum(live.values())), temporary_bytes(op, target))
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


def _largest_temporary(ops: Sequence[Op], target: Target) -> float:
    return max((temporary_bytes(op, target) for op in ops if not op.is_once_per_update), default=0.0)


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


def boundary_bytes(program: Program, stage: int, is_over_links: bool = False) -> int:
    """Bytes of one micro batch that a stage takes from those before it; over links: only from stages on other IPUs."""
    ipus = program.stages.ipus
    maker = {op.writes: program.stage_of(op) for op in program.ops if program.stage_of(op) < stage and not op.is_once_per_update}
    taken: Dict[int, int] = {}
    for op in program.ops_of_stage(stage):
        for number, tensor in zip(op.reads, op.inputs):
            if number in maker and not (is_over_links and ipus[maker[number]] == ipus[stage]):
                taken[number] = max(taken.get(number, 0), tensor.bytes)
    return sum(taken.values())


def _stash_bytes(program: Program, stage: int, settings: Settings) -> float:
    """What micro batches keep on a stage while they wait for their backward passes: its input where it is recomputed."""
    ops = program.ops_of_stage(stage)
    if not program.is_training or not any(op.has_backward for op in ops):
        return 0.0
    slots = Slots.of(settings.schedule, program.stages.number, program.is_training)
    held = boundary_bytes(program, stage) if settings.is_recomputed else sum(stored_bytes(ops))
    return float(slots.waiting(stage, settings.gradient_accumulation) * (held or sum(tensor.bytes for tensor in program.inputs)))


def liveness(program: Program, stage: int, settings: Settings, tiles: int) -> Tuple[List[float], List[float]]:
    """Bytes per tile of what does not always live, after each operation of a stage's forward pass and of its backward pass.

    Forward passes of a recomputed stage keep what later operations read; others keep what the backward pass will read. The backward pass
    begins with all of that and gives it up. None in inference.
    """
    ops = [op for op in program.ops_of_stage(stage) if not op.is_once_per_update]
    crossing = [value / tiles for value in _crossing_bytes(ops)[: len(ops) + 1]]
    if not program.is_training:
        return crossing, []
    stored = [0.0]
    for position in range(len(ops)):
        stored.append(stored[-1] + sum(stored_bytes(ops[position : position + 1])))
    scale = _kept_bytes(ops, settings) / stored[-1] / tiles if stored[-1] else 0.0  # a tensor with two readers is stored once
    forward = crossing if settings.is_recomputed else [max(value, kept * scale) for value, kept in zip(crossing, stored)]
    return forward, [value * scale for value in reversed(stored)]
