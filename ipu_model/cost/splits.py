"""Where to cut a model into pipeline stages, and how large its micro batch may be."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

from ipu_model.program.ops import Op, Program, Tensor
from ipu_model.program.simplify import simplified

from .estimate import Estimate, estimate_program, micro_batch_work, total_work
from .hardware import Machine
from .memory import boundary_bytes, stage_memory
from .settings import Settings


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
    return replace(program, ops=tuple(ops), variables=tuple(variables), stage_of_block=(0,) * (len(paths) + 1))


def with_splits(program: Program, cuts: Sequence[int]) -> Program:
    """A program of units with stages that begin at the units `cuts`."""
    return replace(program, stage_of_block=tuple(sum(unit >= cut for cut in cuts) for unit in range(len(program.stage_of_block))))


def best_cuts(program: Program, num_stages: int, settings: Settings, machine: Machine) -> Optional[Tuple[int, ...]]:
    """Units at which stages begin, so that the slowest stage is as fast as it can be and every stage's memory fits; None where none does.

    Dynamic programming: the best way to run units 0 to j in s stages is the best way to run 0 to i in s - 1, and i to j in the last.
    """
    units = len(program.stage_of_block)
    ipu = machine.ipu
    program = replace(program, ops=tuple(op for op in simplified(program.ops) if not op.is_once_per_update))
    by_unit = [[op for op in program.ops if op.block == unit] for unit in range(units)]
    work = [total_work(micro_batch_work(ops, program.is_training, settings, ipu)) for ops in by_unit]
    cycles = [forward.cycles + backward.cycles for forward, backward in work]
    steps = [forward.steps + backward.steps for forward, backward in work]

    @lru_cache(maxsize=None)
    def segment(begin: int, end: int, stage: int) -> float:
        """Cycles of the units from `begin` to before `end` as a stage; infinite where they do not fit."""
        stages = tuple(stage + (unit >= end) - (unit < begin) for unit in range(units))  # the others just before and behind
        part = replace(program, stage_of_block=stages)
        transfer = boundary_bytes(part, stage) / ipu.link_bytes_per_second * ipu.clock_hz if stage else 0.0
        memory = stage_memory(part, stage, settings, ipu, sum(steps[begin:end]), num_stages)
        return sum(cycles[begin:end]) + transfer if memory.total <= ipu.sram_bytes_per_tile else float("inf")

    best: List[List[Tuple[float, Tuple[int, ...]]]] = [[(float("inf"), ()) for _ in range(units + 1)] for _ in range(num_stages)]
    for end in range(1, units + 1):
        best[0][end] = (segment(0, end, 0), ())
    for stage in range(1, num_stages):
        for end in range(stage + 1, units + 1):
            for begin in range(end - 1, stage - 1, -1):
                before, cuts = best[stage - 1][begin]
                if sum(cycles[begin:end]) >= best[stage][end][0]:
                    break  # longer stages are slower still
                slowest = max(before, segment(begin, end, stage))
                if slowest < best[stage][end][0]:
                    best[stage][end] = (slowest, (*cuts, begin))
    slowest, cuts = best[num_stages - 1][units]
    return cuts if slowest < float("inf") else None


def with_micro_batch(program: Program, size: int) -> Program:
    """The program for another micro batch: first dimensions that are multiples of the present one scale."""
    present = program.inputs[0].shape[0]

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
        return all(stage.fits for stage in estimate_program(with_micro_batch(program, size), settings, machine).stages)

    low, high = 0, 1
    while high <= LARGEST_MICRO_BATCH and fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def suggestions(program: Program, estimate: Estimate) -> List[str]:
    """Changes that would make a program fit, each of which was tried; empty where it fits as it is."""
    if all(stage.fits for stage in estimate.stages):
        return []
    settings, machine = estimate.settings, estimate.machine
    present = program.inputs[0].shape[0]
    found: List[str] = []
    largest = largest_micro_batch(program, settings, machine)
    if 0 < largest < present:
        found.append(f"a micro batch of {largest} instead of {present} (with more gradient accumulation)")
    trials = (
        ("recomputation of activations", replace(settings, is_recomputed=True), program.is_training),
        ("optimizer state off the chip", replace(settings, is_optimizer_off_chip=True), program.is_training),
        ("optimizer state sharded over the replicas", replace(settings, is_optimizer_sharded=True), settings.replication_factor > 1),
        ("an available memory proportion of 0.2", replace(settings, available_memory_proportion=0.2), True),
    )
    for name, changed, applies in trials:
        if applies and changed != settings and all(stage.fits for stage in estimate_program(program, changed, machine).stages):
            found.append(name)
    return found or ["a smaller micro batch together with more pipeline stages, or a smaller model"]
