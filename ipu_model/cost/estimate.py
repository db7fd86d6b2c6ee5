"""A program's cost on a machine: cycles, memory, pipeline and throughput, put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program
from ipu_model.program.simplify import simplified

from .hardware import Ipu, Machine
from .memory import Memory, boundary_bytes, liveness, stage_memory
from .schedule import Timeline, timeline
from .settings import Settings
from .work import Work, backward_work, forward_work


@dataclass(frozen=True)
class StageEstimate:
    """One pipeline stage on its IPU.

    Attributes:
        forward, backward: work of one micro batch; recomputation is in the backward pass.
        transfer_cycles: of one micro batch, from the host or the stage before, in the forward pass.
        liveness: bytes per tile after each operation of a micro batch, forward and then backward.
    """

    stage: int
    forward: Work
    backward: Work
    transfer_cycles: float
    memory: Memory
    limit_bytes_per_tile: int
    liveness: Tuple[float, ...] = ()

    @property
    def cycles(self) -> float:
        """Of one micro batch, forward and backward."""
        return self.forward.cycles + self.backward.cycles + self.transfer_cycles

    @property
    def fits(self) -> bool:
        """Whether its memory does."""
        return self.memory.total <= self.limit_bytes_per_tile


@dataclass(frozen=True)
class Estimate:
    """What one call's weight update (or device iterations, in inference) costs, and what follows from that.

    Attributes:
        layers: cycles of one micro batch by module path, the costliest first.
        update_cycles: of the weight update with the reduction over replicas.
        images_per_step: samples of all replicas in `step_cycles`.
        macs: multiply-accumulates of one image's forward pass; `step_macs` with those of its backward pass.
    """

    machine: Machine
    num_ipus: int
    stages: Tuple[StageEstimate, ...]
    timeline: Timeline
    update_cycles: float
    images_per_step: int
    layers: Tuple[Tuple[str, float], ...]
    macs: int
    step_macs: int
    settings: Settings

    @property
    def step_cycles(self) -> float:
        """Cycles of a weight update, or of a call's device iterations."""
        return self.timeline.total + self.update_cycles

    @property
    def images_per_second(self) -> float:
        """Throughput of all replicas."""
        return self.images_per_step * self.machine.ipu.clock_hz / self.step_cycles

    @property
    def fits(self) -> bool:
        """Whether every IPU's memory does, and there are enough IPUs."""
        return all(stage.fits for stage in self.stages) and self.num_ipus <= self.machine.num_ipus

    @property
    def matrix_utilisation(self) -> float:
        """Share of the matrix units' peak that the multiply-accumulates of a step are."""
        peak = self.machine.ipu.amp_macs_per_cycle_half * self.machine.ipu.tiles * self.num_ipus
        return self.step_macs * self.images_per_step / (peak * self.step_cycles)

    def as_json(self) -> Dict[str, object]:
        """Plain values for programs that read them."""
        return {
            "machine": self.machine.name,
            "images_per_second": self.images_per_second,
            "step_cycles": self.step_cycles,
            "bubble_fraction": self.timeline.bubble_fraction,
            "fits": self.fits,
            "num_ipus": self.num_ipus,
            "ipus": [
                {
                    "cycles": stage.cycles,
                    "peak_bytes_per_tile": stage.memory.total,
                    "limit_bytes_per_tile": stage.limit_bytes_per_tile,
                }
                for stage in self.stages
            ],
        }


def estimate_program(program: Program, settings: Settings, machine: Machine) -> Estimate:
    """The cost of a program. Takes milliseconds; nothing is computed but formulas."""
    ipu = replace(machine.ipu, tiles=machine.ipu.tiles - settings.io_tiles)
    ops = simplified(program.ops)
    stages: List[StageEstimate] = []
    layers: Dict[str, float] = {}
    update = Work()
    for op in (op for op in ops if op.is_once_per_update):
        update += forward_work(op, settings, ipu) + (backward_work(op, settings, ipu) if program.is_training else Work())
    for stage in range(program.num_stages):
        works = micro_batch_work([op for op in ops if program.stage_of_block[op.block] == stage], program.is_training, settings, ipu)
        for op, ahead, back in works:
            layers[op.path] = layers.get(op.path, 0.0) + ahead.cycles + back.cycles
        forward, backward = total_work(works)
        cleaned = replace(program, ops=ops)
        memory = stage_memory(cleaned, stage, settings, ipu, forward.steps + backward.steps)
        transfer = _transfer_cycles(program, stage, settings, ipu)
        curve = tuple(liveness(cleaned, stage, memory, settings, ipu))
        stages.append(StageEstimate(stage, forward, backward, transfer, memory, ipu.sram_bytes_per_tile, curve))
    return _combine(program, settings, machine, stages, layers, update)


def micro_batch_work(ops: Sequence[Op], is_training: bool, settings: Settings, ipu: Ipu) -> List[Tuple[Op, Work, Work]]:
    """Forward and backward work of a stage's operations for one micro batch.

    Recomputation is a part of the backward work; a stage without a backward pass, as that of frozen layers, is not recomputed.
    """
    works = []
    is_recomputed = is_training and settings.is_recomputed and any(op.has_backward for op in ops)
    for op in (op for op in ops if not op.is_once_per_update):
        ahead = forward_work(op, settings, ipu)
        back = backward_work(op, settings, ipu) if is_training else Work()
        works.append((op, ahead, back + ahead if is_recomputed else back))
    return works


def total_work(works: Sequence[Tuple[Op, Work, Work]]) -> Tuple[Work, Work]:
    """Forward and backward work of all operations."""
    forward, backward = Work(), Work()
    for _, ahead, back in works:
        forward, backward = forward + ahead, backward + back
    return forward, backward


def _combine(
    program: Program, settings: Settings, machine: Machine, stages: List[StageEstimate], layers: Dict[str, float], update: Work
) -> Estimate:
    num_micro_batches = settings.gradient_accumulation if program.is_training else settings.device_iterations
    times = timeline(
        [stage.forward.cycles + stage.transfer_cycles for stage in stages],
        [stage.backward.cycles for stage in stages],
        num_micro_batches,
        settings.schedule,
    )
    micro_batch = program.inputs[0].shape[0] if program.inputs and program.inputs[0].shape else 1
    return Estimate(
        machine=machine,
        num_ipus=len(stages) * settings.replication_factor,
        stages=tuple(stages),
        timeline=times,
        update_cycles=update.cycles / len(stages) + _update_cycles(program, settings, machine.ipu) if program.is_training else 0.0,
        images_per_step=micro_batch * num_micro_batches * settings.replication_factor,
        layers=tuple(sorted(layers.items(), key=lambda item: -item[1])),
        macs=program.macs // max(micro_batch, 1),
        step_macs=sum(_macs_of_passes(op, program.is_training) for op in program.ops) // max(micro_batch, 1),
        settings=settings,
    )


def _macs_of_passes(op: Op, is_training: bool) -> int:
    return op.macs * (1 + (min(op.input_gradients, 1) + min(op.parameter_gradients, 1) if is_training else 0))


def _transfer_cycles(program: Program, stage: int, settings: Settings, ipu: Ipu) -> float:
    """Cycles of one micro batch's way to a stage: from the host to the first, over the links to the others.

    A replica uses the host's links of all its IPUs. With I/O tiles the host's transfer goes on beside the computation.
    """
    if stage > 0:
        return boundary_bytes(program, stage) / ipu.link_bytes_per_second * ipu.clock_hz
    if settings.io_tiles:
        return 0.0
    return sum(tensor.bytes for tensor in program.inputs) / (ipu.host_bytes_per_second * program.num_stages) * ipu.clock_hz


def _update_cycles(program: Program, settings: Settings, ipu: Ipu) -> float:
    """The slowest stage's weight update: reduction of the gradients over the replicas in a ring, then the optimizer's passes."""
    slowest = 0.0
    for stage in range(program.num_stages):
        elements = sum(v.tensor.elements for v in program.variables if v.is_trained and program.stage_of_block[v.block] == stage)
        replicas = settings.replication_factor
        reduced = 2 * (replicas - 1) / replicas * elements * settings.accumulator_bytes / ipu.link_bytes_per_second * ipu.clock_hz
        passes = elements / ipu.tiles * settings.optimizer_passes * 3 / 2  # 3 worker cycles for 2 floats
        if settings.is_optimizer_sharded:
            passes /= replicas
        streamed = 0.0
        if settings.is_optimizer_off_chip:
            state = 2 * elements * settings.optimizer_state_bytes / (replicas if settings.is_optimizer_sharded else 1)
            streamed = state / ipu.streaming_bytes_per_second * ipu.clock_hz
        slowest = max(slowest, reduced + passes + streamed)
    return slowest
