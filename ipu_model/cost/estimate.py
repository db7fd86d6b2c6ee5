"""A program's cost on a machine: cycles, memory, pipeline and throughput, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program, Tensor
from ipu_model.program.simplify import simplified

from .hardware import Ipu, Machine
from .memory import Memory, boundary_bytes, ipu_memory, liveness, stage_memory
from .recomputation import micro_batch_ops, recomputation
from .schedule import Timeline, timeline
from .settings import Settings, Target
from .work import Work, addition_work, backward_work, forward_work


@dataclass(frozen=True)
class StageEstimate:
    """One pipeline stage.

    Attributes:
        stage, ipu: its order in the pipeline, and the IPU of a replica that runs it.
        forward, backward: work of one micro batch; recomputation is in the backward pass.
        input_cycles: of one micro batch's way from the host or the stage before, in the forward pass.
        gradient_cycles: of its gradients' way to the stage before, in the backward pass.
    """

    stage: int
    ipu: int
    forward: Work
    backward: Work
    input_cycles: float
    gradient_cycles: float

    @property
    def cycles(self) -> float:
        """Of one micro batch, forward and backward."""
        return self.forward.cycles + self.backward.cycles + self.transfer_cycles

    @property
    def transfer_cycles(self) -> float:
        """Of one micro batch, forward and backward."""
        return self.input_cycles + self.gradient_cycles


@dataclass(frozen=True)
class IpuEstimate:
    """One IPU of a replica.

    Attributes:
        stages: numbers of the stages that it runs.
        cycles: of one micro batch, of all of them.
        liveness: bytes per tile after each operation of a micro batch, forward and then backward.
    """

    ipu: int
    stages: Tuple[int, ...]
    cycles: float
    memory: Memory
    limit_bytes_per_tile: int
    liveness: Tuple[float, ...]

    @property
    def fits(self) -> bool:
        """Whether its memory does."""
        return self.memory.total <= self.limit_bytes_per_tile


@dataclass(frozen=True)
class Estimate:
    """What one call's weight update (or device iterations, in inference) costs, and what follows from that.

    Attributes:
        num_ipus: that all replicas occupy.
        stages, ipus: of one replica.
        layers: cycles of one micro batch by module path, the costliest first.
        update_cycles: of the weight update with the reduction over replicas.
        images_per_step: samples of all replicas in `step_cycles`.
        macs: multiply-accumulates of one image's forward pass; `step_macs` with those of its backward pass.
    """

    machine: Machine
    num_ipus: int
    stages: Tuple[StageEstimate, ...]
    ipus: Tuple[IpuEstimate, ...]
    timeline: Timeline
    update_cycles: float
    images_per_step: int
    layers: Tuple[Tuple[str, float], ...]
    macs: int
    step_macs: int
    settings: Settings
    is_training: bool

    @property
    def step_cycles(self) -> float:
        """Cycles of a weight update, or of a call's device iterations."""
        return self.timeline.total + self.update_cycles

    @property
    def images_per_second(self) -> float:
        """Throughput of all replicas."""
        return self.images_per_step * self.machine.ipu.clock_hz / self.step_cycles

    @property
    def memory_fits(self) -> bool:
        """Whether every IPU's memory does."""
        return all(ipu.fits for ipu in self.ipus)

    @property
    def fits(self) -> bool:
        """Whether every IPU's memory does, and there are enough IPUs."""
        return self.memory_fits and self.num_ipus <= self.machine.num_ipus

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
                    "cycles": ipu.cycles,
                    "peak_bytes_per_tile": ipu.memory.total,
                    "limit_bytes_per_tile": ipu.limit_bytes_per_tile,
                }
                for ipu in self.ipus
            ],
        }


def estimate_program(program: Program, settings: Settings, machine: Machine) -> Estimate:
    """The cost of a program. Takes milliseconds; nothing is computed but formulas."""
    program = simplified(program)
    stages: List[StageEstimate] = []
    layers: Dict[str, float] = {}
    for stage, ipu in enumerate(program.stages.ipus):
        num_again = recomputation(program, stage, settings).operations if program.is_training else 0
        works = micro_batch_work(micro_batch_ops(program, stage), program.is_training, num_again, settings.target(machine.ipu, ipu))
        for op, ahead, back in works:
            layers[op.path] = layers.get(op.path, 0.0) + ahead.cycles + back.cycles
        forward, backward = total_work(works)
        if program.is_training:
            backward += gradient_sum_work(program.ops_of_stage(stage), settings.target(machine.ipu, ipu))
        backward += accumulation_work(program, stage, settings, settings.target(machine.ipu, ipu))
        stages.append(StageEstimate(stage, ipu, forward, backward, *transfer_cycles(program, stage, settings, machine.ipu)))
    times = timeline(*pass_cycles(stages), settings.num_micro_batches(program.is_training), settings.schedule)
    images = program.micro_batch_size
    return Estimate(
        machine=machine,
        num_ipus=program.stages.ipus_per_replica * settings.replication_factor,
        stages=tuple(stages),
        ipus=tuple(_ipu_estimate(program, ipu, stages, settings, machine.ipu) for ipu in program.stages.used_ipus),
        timeline=times,
        update_cycles=_update_cycles(program, settings, machine.ipu),
        images_per_step=images * settings.num_micro_batches(program.is_training) * settings.replication_factor,
        layers=tuple(sorted(layers.items(), key=lambda item: -item[1])),
        macs=program.macs // images,
        step_macs=sum(_macs_of_passes(op, program.is_training) for op in program.ops) // images,
        settings=settings,
        is_training=program.is_training,
    )


def pass_cycles(stages: Sequence[StageEstimate]) -> Tuple[List[float], List[float], List[int]]:
    """Forward and backward cycles of each stage for one micro batch, and its IPU: what schedules take."""
    forward = [stage.forward.cycles + stage.input_cycles for stage in stages]
    return forward, [stage.backward.cycles + stage.gradient_cycles for stage in stages], [stage.ipu for stage in stages]


def micro_batch_work(ops: Sequence[Op], is_training: bool, num_again: int, target: Target) -> List[Tuple[Op, Work, Work]]:
    """Forward and backward work of a stage's operations for one micro batch; the first `num_again` run again in the backward pass."""
    works = []
    for position, op in enumerate(ops):
        ahead = forward_work(op, target)
        back = backward_work(op, target) if is_training else Work()
        works.append((op, ahead, back + ahead if position < num_again else back))
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


def total_work(works: Sequence[Tuple[Op, Work, Work]]) -> Tuple[Work, Work]:
    """Forward and backward work of all operations."""
    forward, backward = Work(), Work()
    for _, ahead, back in works:
        forward, backward = forward + ahead, backward + back
    return forward, backward


def _ipu_estimate(program: Program, ipu: int, stages: Sequence[StageEstimate], settings: Settings, chip: Ipu) -> IpuEstimate:
    target = settings.target(chip, ipu)
    own = [stage for stage in stages if stage.ipu == ipu]
    memory = ipu_memory([stage_memory(program, s.stage, settings, target, s.forward.steps + s.backward.steps) for s in own])
    curves = [liveness(program, stage.stage, settings, target.tiles) for stage in own]
    curve = [value for forward, _ in curves for value in forward] + [value for _, backward in reversed(curves) for value in backward]
    return IpuEstimate(
        ipu=ipu,
        stages=tuple(stage.stage for stage in own),
        cycles=sum(stage.cycles for stage in own),
        memory=memory,
        limit_bytes_per_tile=chip.sram_bytes_per_tile,
        liveness=tuple(memory.always_live + value for value in curve),
    )


def _macs_of_passes(op: Op, is_training: bool) -> int:
    return op.macs * (1 + (min(op.input_gradients, 1) + min(op.parameter_gradients, 1) if is_training else 0))


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


def _update_cycles(program: Program, settings: Settings, chip: Ipu) -> float:
    """The weight update of the IPU that takes longest with it; none in inference."""
    if not program.is_training:
        return 0.0
    return max(_update_cycles_of_ipu(program, ipu, settings, chip) for ipu in program.stages.used_ipus)


def _update_cycles_of_ipu(program: Program, ipu: int, settings: Settings, chip: Ipu) -> float:
    """What is computed of parameters alone, the reduction of the gradients over the replicas in a ring, and the optimizer's passes."""
    target = settings.target(chip, ipu)
    stages = program.stages.on_ipu(ipu)
    once = [op for op in program.ops if op.is_once_per_update and program.stage_of(op) in stages]
    derived = sum(forward_work(op, target).cycles + backward_work(op, target).cycles for op in once)
    elements = sum(v.tensor.elements for v in program.variables if v.is_trained and program.stage_of(v) in stages)
    replicas = settings.replication_factor
    reduced = 2 * (replicas - 1) / replicas * elements * settings.optimizer.gradient_bytes / chip.link_bytes_per_second * chip.clock_hz
    passes = elements / chip.tiles * settings.optimizer.passes * 3 / 2  # 3 worker cycles for 2 floats
    streamed = 2 * elements * settings.optimizer.state_bytes / chip.streaming_bytes_per_second * chip.clock_hz
    shards = replicas if settings.is_optimizer_sharded else 1
    return derived + reduced + passes / shards + (streamed / shards if settings.is_optimizer_off_chip else 0.0)
