"""Where to cut a model into pipeline stages, and how large its micro batch may be."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Sequence, Tuple

from ipu_model.program.ops import Op, Program, Tensor
from ipu_model.program.placement import Stages
from ipu_model.program.simplify import simplified

from .estimate import Estimate, estimate_program
from .hardware import Ipu, Machine
from .memory import stage_memory
from .settings import Settings, Target
from .stages import accumulation_work, gradient_sum_work, micro_batch_work, total_work, transfer_cycles
from .work import Work


def with_units(program: Program, paths: Sequence[str]) -> Program:
    """The program with a block for each of the modules, in order; what runs before the first belongs to block 0.

    Args:
        paths: module paths as they are in the records, in the order of execution.
    """
    position = {path: number for number, path in enumerate(paths, start=1)}

    def unit_of(path: str) -> Optional[int]:
        parts = path.split(".")
        return next((position[head] for end in range(len(parts), 0, -1) if (head := ".".join(parts[:end])) in position), None)

    current = 0
    ops: List[Op] = []
    for op in program.ops:
        current = max(current, unit_of(op.path) or 0)
        ops.append(replace(op, block=current))
    last_unit = {op.path: op.block for op in ops}
    variables = [replace(v, block=unit_of(v.name) or last_unit.get(v.name.rpartition(".")[0], 0)) for v in program.variables]
    return replace(program, ops=tuple(ops), variables=tuple(variables), stages=Stages((0,) * (len(paths) + 1)))


def with_splits(program: Program, cuts: Sequence[int]) -> Program:
    """A program of units with stages that begin at the units `cuts`, each on an IPU of its own."""
    of_block = tuple(sum(unit >= cut for cut in cuts) for unit in range(len(program.stages.of_block)))
    return replace(program, stages=Stages(of_block, tuple(range(len(cuts) + 1))))


def best_cuts(program: Program, num_stages: int, settings: Settings, machine: Machine) -> Optional[Tuple[int, ...]]:
    """Units at which stages begin, so that the slowest stage is as fast as it can be and every stage's memory fits; None where none does.

    Dynamic programming: the best way to run units 0 to j in s stages is the best way to run 0 to i in s - 1, and i to j in the last.
    """
    program = simplified(program)
    program = replace(program, ops=tuple(op for op in program.ops if not op.is_once_per_update))
    units = len(program.stages.of_block)
    segment = _Segments(program, num_stages, settings, machine.ipu)
    infinite = float("inf")
    best: List[List[Tuple[float, Tuple[int, ...]]]] = [[(infinite, ()) for _ in range(units + 1)] for _ in range(num_stages)]
    for end in range(1, units + 1):
        best[0][end] = (segment.cycles(0, end, 0), ())
    for stage in range(1, num_stages):
        for end in range(stage + 1, units + 1):
            for begin in range(end - 1, stage - 1, -1):
                before, cuts = best[stage - 1][begin]
                if segment.least_cycles(begin, end, stage) >= best[stage][end][0]:
                    break  # longer stages are slower still
                slowest = max(before, segment.cycles(begin, end, stage))
                if slowest < best[stage][end][0]:
                    best[stage][end] = (slowest, (*cuts, begin))
    slowest, cuts = best[num_stages - 1][units]
    return cuts if slowest < infinite else None


class _Segments:
    """Runs of units as pipeline stages: what they cost, and whether they fit."""

    def __init__(self, program: Program, num_stages: int, settings: Settings, chip: Ipu) -> None:
        self._program, self._settings, self._chip = program, settings, chip
        self._units = len(program.stages.of_block)
        self._ipus = tuple(range(num_stages))
        by_unit = [[op for op in program.ops if op.block == unit] for unit in range(self._units)]
        self._targets = [settings.target(chip, ipu) for ipu in self._ipus]
        ways = [(target, settings.is_recomputed and stage < num_stages - 1) for stage, target in enumerate(self._targets)]
        works = {way: [self._unit_work(ops, *way) for ops in by_unit] for way in set(ways)}
        self._work = [works[way] for way in ways]  # by stage, and then by unit

    def _unit_work(self, ops: Sequence[Op], target: Target, is_recomputed: bool) -> Work:
        forward, backward = total_work(micro_batch_work(ops, self._program.is_training, len(ops) if is_recomputed else 0, target))
        return forward + backward

    def least_cycles(self, begin: int, end: int, stage: int) -> float:
        """Cycles of the units from `begin` to before `end` as a stage, without transfers."""
        return sum(work.cycles for work in self._work[stage][begin:end])

    def cycles(self, begin: int, end: int, stage: int) -> float:
        """Cycles of a stage; infinite where its memory does not fit."""
        of_block = tuple(stage + (unit >= end) - (unit < begin) for unit in range(self._units))  # the others just before and behind
        part = replace(self._program, stages=Stages(of_block, self._ipus))
        steps = sum(work.steps for work in self._work[stage][begin:end])
        memory = stage_memory(part, stage, self._settings, self._targets[stage], steps)
        if memory.total > self._chip.sram_bytes_per_tile:
            return float("inf")
        target = self._targets[stage]
        sums = gradient_sum_work(part.ops_of_stage(stage), target) if part.is_training else Work()
        sums += accumulation_work(part, stage, self._settings, target)
        return self.least_cycles(begin, end, stage) + sums.cycles + sum(transfer_cycles(part, stage, self._settings, self._chip))


def with_micro_batch(program: Program, size: int) -> Program:
    """The program for another micro batch: first dimensions that are multiples of the present one scale."""
    present = program.micro_batch_size

    def scale(tensor: Tensor) -> Tensor:
        if not tensor.shape or tensor.shape[0] % present:
            return tensor
        return Tensor((tensor.shape[0] // present * size, *tensor.shape[1:]), tensor.dtype)

    ops = tuple(
        op if op.is_once_per_update else replace(op, inputs=tuple(scale(tensor) for tensor in op.inputs), output=scale(op.output))
        for op in program.ops
    )
    inputs, outputs = (tuple(scale(tensor) for tensor in tensors) for tensors in (program.inputs, program.outputs))
    return replace(program, ops=ops, inputs=inputs, outputs=outputs)


LARGEST_MICRO_BATCH = 1024


def largest_micro_batch(program: Program, settings: Settings, machine: Machine) -> int:
    """The largest micro batch whose memory fits with the program's stages; 0 where not even one sample does."""

    def fits(size: int) -> bool:
        return estimate_program(with_micro_batch(program, size), settings, machine).memory_fits

    low, high = 0, 1
    while high <= LARGEST_MICRO_BATCH and fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def suggestions(program: Program, estimate: Estimate) -> List[str]:
    """Changes that would make a program fit, each of which was tried; empty where it fits as it is."""
    if estimate.memory_fits:
        return []
    settings, machine = estimate.settings, estimate.machine
    present = program.micro_batch_size
    found: List[str] = []
    largest = largest_micro_batch(program, settings, machine)
    if 0 < largest < present:
        found.append(f"a micro batch of {largest} instead of {present} (with more gradient accumulation)")
    trials = (
        ("recomputation of activations", replace(settings, is_recomputed=True), program.is_training),
        ("optimizer state off the chip", replace(settings, is_optimizer_off_chip=True), program.is_training),
        ("optimizer state sharded over the replicas", replace(settings, is_optimizer_sharded=True), settings.replication_factor > 1),
        ("an available memory proportion of 0.2", replace(settings, memory_proportions=(0.2,) * program.stages.ipus_per_replica), True),
    )
    for name, changed, applies in trials:
        if applies and changed != settings and estimate_program(program, changed, machine).memory_fits:
            found.append(name)
    return found or ["a smaller micro batch together with more pipeline stages, or a smaller model"]
