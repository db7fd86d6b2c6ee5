"""Work of pipeline stages for one micro batch: their operations, recomputation, gradients that are added up, and transfers."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Tuple

from ipu_model.program.ops import Op, Program, Tensor

from .hardware import Ipu
from .memory import boundary_bytes
from .settings import Settings, Target
from .work import Work, addition_work, backward_work, forward_work


class OpWork(NamedTuple):
    """One operation's work for one micro batch: forward, again in the backward pass, and the backward pass itself."""

    op: Op
    target: Target
    forward: Work
    again: Work
    backward: Work


def micro_batch_work(ops: Sequence[Op], is_training: bool, num_again: int, target: Target) -> List[OpWork]:
    """Work of a stage's operations for one micro batch; the first `num_again` run again in the backward pass."""
    works = []
    for position, op in enumerate(ops):
        ahead = forward_work(op, target)
        back = backward_work(op, target) if is_training else Work()
        works.append(OpWork(op, target, ahead, ahead if position < num_again else Work(), back))
    return works


def gradient_sum_work(ops: Sequence[Op], target: Target) -> Work:
    """A tensor that several operations read gets a gradient from each: all but the first are added."""
    readers: Dict[int, int] = {}  # of the tensor that a number stands for now
    sums = Work()
    for op in (op for op in ops if op.has_backward):
        for number, tensor in zip(op.reads[: op.input_gradients], op.inputs):
            if readers.get(number, 0):
                sums += addition_work(tensor, target)
            readers[number] = readers.get(number, 0) + 1
        if op.writes in op.reads:
            readers[op.writes] = 0  # written over in place
    return sums


def total_work(works: Sequence[OpWork]) -> Tuple[Work, Work]:
    """Forward and backward work of all operations; recomputation is in the backward work."""
    forward, backward = Work(), Work()
    for work in works:
        forward, backward = forward + work.forward, backward + work.again + work.backward
    return forward, backward


def transfer_cycles(program: Program, stage: int, settings: Settings, chip: Ipu) -> Tuple[float, float]:
    """Cycles of one micro batch's way to a stage, from the host or over the links from the stage before, and of its gradients' way back.

    A replica uses the host's links of all its IPUs. With I/O tiles the host's transfer goes on beside the computation.
    """
    if stage > 0:
        cycles = boundary_bytes(program, stage, is_over_links=True) / chip.link_bytes_per_second * chip.clock_hz
        has_gradient = program.is_training and any(op.has_backward for op in program.ops if program.stage_of(op) < stage)
        return cycles, cycles if has_gradient else 0.0
    if settings.io_tiles:
        return 0.0, 0.0
    host = chip.host_bytes_per_second * program.stages.ipus_per_replica
    return sum(tensor.bytes for tensor in program.inputs) / host * chip.clock_hz, 0.0


def accumulation_work(program: Program, stage: int, settings: Settings, target: Target) -> Work:
    """Adding a micro batch's gradients to their sums: one pass over each trained variable; none where there is no accumulation."""
    if not program.is_training or settings.gradient_accumulation == 1:
        return Work()
    trained = [variable.tensor for variable in program.variables if variable.is_trained and program.stage_of(variable) == stage]
    kind = "float16" if settings.optimizer.gradient_bytes == 2 else "float32"
    return sum((addition_work(Tensor(tensor.shape, kind), target) for tensor in trained), Work())
