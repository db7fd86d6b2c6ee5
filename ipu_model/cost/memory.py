"""Memory of one IPU, in bytes for each tile: what always lives, what waits for the backward pass, and the worst point in between."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program, Variable

from . import assumptions as assumed
from .plan import plan
from .product import forward_product, gradient_products
from .recomputation import crossing_bytes, lifetimes, micro_batch_ops, recomputation, stored_bytes
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
    ops = micro_batch_ops(program, stage)
    live, temporary = _worst_point(ops, target)
    if program.is_training:
        at_start = (recomputation(program, stage, settings).kept_bytes, max((temporary_bytes(op, target) for op in ops), default=0.0))
        live, temporary = max((live, temporary), at_start, key=sum)
    return Memory(
        weights=(sum(variable.tensor.bytes for variable in variables) + _derived_bytes(ops, variables)) / tiles,
        optimizer_state=state / tiles,
        accumulators=trained * settings.optimizer.gradient_bytes / tiles if has_sum else 0.0,
        stashes=_stash_bytes(program, stage, settings) / tiles,
        activations=assumed.ASSUMED_TILE_IMBALANCE * live / tiles,
        temporaries=temporary / tiles,
        code=assumed.ASSUMED_CODE_BYTES + assumed.ASSUMED_CODE_BYTES_PER_STEP * num_steps,
    )


def _derived_bytes(ops: Sequence[Op], variables: Sequence[Variable]) -> int:
    """What was computed of parameters alone and is read for each micro batch, such as weights in half: it lives as long as they do."""
    given = {(variable.tensor.elements, variable.tensor.dtype, variable.name.rpartition(".")[0]) for variable in variables}
    derived = {(op.path, place, tensor) for op in ops for place, tensor in enumerate(op.parameters)}
    return sum(tensor.bytes for path, _, tensor in derived if (tensor.elements, tensor.dtype, path) not in given)


def temporary_bytes(op: Op, target: Target) -> float:
    """What an operation needs beside its inputs and outputs, forward or backward, over all tiles.

    A product has its operands in another layout and its partial sums, within the available memory proportion, or before that an operand
    twice while it is rearranged (PL ConvPlan); a norm keeps the centred values.
    """
    if op.kind in ("conv", "matmul"):
        products = [forward_product(op), *gradient_products(op)]
        rearranged = max((tensor.bytes for product in products for tensor in (*product.moved, *product.transposed)), default=0)
        planned = max(plan(product, target).temporary_bytes_per_tile for product in products) * target.tiles
        return max(planned, 2 * assumed.ASSUMED_TILE_IMBALANCE * rearranged)
    if op.kind == "norm" and op.name != "folded_batch_norm":
        return float(op.output.bytes)
    return 0.0


def _worst_point(ops: Sequence[Op], target: Target) -> Tuple[float, float]:
    """(live, temporary) bytes of the forward pass where their sum is largest, when nothing is kept for a backward pass."""
    last, size = lifetimes(ops)
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
    ops = micro_batch_ops(program, stage)
    per_tile = assumed.ASSUMED_TILE_IMBALANCE / tiles
    crossing = [value * per_tile for value in crossing_bytes(ops)[: len(ops) + 1]]
    if not program.is_training:
        return crossing, []
    way = recomputation(program, stage, settings)
    stored = [0.0]
    for position in range(len(ops)):
        stored.append(stored[-1] + sum(stored_bytes(ops[position : position + 1])))
    scale = way.kept_bytes / stored[-1] * per_tile if stored[-1] else 0.0  # a tensor with two readers is stored once
    forward = crossing if way.operations else [max(value, kept * scale) for value, kept in zip(crossing, stored)]
    return forward, [value * scale for value in reversed(stored)]
