"""A program's cost on a machine: cycles, memory, pipeline and throughput, put together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Dict, List, Sequence, Tuple

from ipu_model.program.ops import Op, Program
from ipu_model.program.simplify import simplified

from .assumptions import listed
from .hardware import Ipu, Machine
from .memory import Memory, ipu_memory, liveness, stage_memory
from .plan import plan
from .product import forward_product
from .recomputation import micro_batch_ops, recomputation
from .schedule import Timeline, timeline
from .settings import Settings
from .stages import OpWork, accumulation_work, gradient_sum_work, micro_batch_work, total_work, transfer_cycles
from .update import update_cycles
from .work import Work, weight_gradient_work

SCHEMA_VERSION = 2  # of `as_json`; it changes where a name or a unit does


@dataclass(frozen=True)
class LayerEstimate:
    """Cycles of one micro batch in one module, or in what belongs to none.

    Attributes:
        kind: of the operation in it that takes most cycles.
        methods: of its products, such as "AMP".
        gradient: of the backward pass without the products for its weights.
    """

    path: str
    kind: str
    methods: Tuple[str, ...] = ()
    forward: float = 0.0
    recomputation: float = 0.0
    gradient: float = 0.0
    weight_gradient: float = 0.0

    @property
    def cycles(self) -> float:
        """All of them."""
        return self.forward + self.recomputation + self.gradient + self.weight_gradient


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
        layers: cycles of one micro batch by module, the costliest first; those of all stages and transfers are in one of them.
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
    layers: Tuple[LayerEstimate, ...]
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
        """Plain values for programs that read them; units are in the names (docs/cost_model.md)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": self.machine.name,
            "images_per_second": self.images_per_second,
            "step_cycles": self.step_cycles,
            "update_cycles": self.update_cycles,
            "images_per_step": self.images_per_step,
            "bubble_fraction": self.timeline.bubble_fraction,
            "matrix_utilisation": self.matrix_utilisation,
            "fits": self.fits,
            "num_ipus": self.num_ipus,
            "settings": asdict(self.settings),
            "stages": [
                {
                    "stage": stage.stage,
                    "ipu": stage.ipu,
                    "forward_cycles": stage.forward.by_kind(),
                    "backward_cycles": stage.backward.by_kind(),
                    "input_cycles": stage.input_cycles,
                    "gradient_cycles": stage.gradient_cycles,
                }
                for stage in self.stages
            ],
            "ipus": [
                {
                    "ipu": ipu.ipu,
                    "cycles": ipu.cycles,
                    "peak_bytes_per_tile": ipu.memory.total,
                    "limit_bytes_per_tile": ipu.limit_bytes_per_tile,
                    "bytes_per_tile": ipu.memory.by_kind(),
                }
                for ipu in self.ipus
            ],
            "layers_cycles": [{**asdict(layer), "total": layer.cycles} for layer in self.layers],
            "assumptions": {each.name: each.value for each in listed()},
        }


def estimate_program(program: Program, settings: Settings, machine: Machine) -> Estimate:
    """The cost of a program. Takes milliseconds; nothing is computed but formulas."""
    program = simplified(program)
    stages: List[StageEstimate] = []
    works: List[OpWork] = []
    for stage, ipu in enumerate(program.stages.ipus):
        num_again = recomputation(program, stage, settings).operations if program.is_training else 0
        own = micro_batch_work(micro_batch_ops(program, stage), program.is_training, num_again, settings.target(machine.ipu, ipu))
        works += own
        forward, backward = total_work(own)
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
        update_cycles=update_cycles(program, settings, machine.ipu),
        images_per_step=images * settings.num_micro_batches(program.is_training) * settings.replication_factor,
        layers=_layers(works, stages),
        macs=program.macs // images,
        step_macs=sum(_macs_of_passes(op, program.is_training) for op in program.ops) // images,
        settings=settings,
        is_training=program.is_training,
    )


def pass_cycles(stages: Sequence[StageEstimate]) -> Tuple[List[float], List[float], List[int]]:
    """Forward and backward cycles of each stage for one micro batch, and its IPU: what schedules take."""
    forward = [stage.forward.cycles + stage.input_cycles for stage in stages]
    return forward, [stage.backward.cycles + stage.gradient_cycles for stage in stages], [stage.ipu for stage in stages]


def _layers(works: Sequence[OpWork], stages: Sequence[StageEstimate]) -> Tuple[LayerEstimate, ...]:
    """Work by module, and what belongs to none: gradients that are added up, and transfers."""
    by_path: Dict[str, List[OpWork]] = {}
    for work in works:
        by_path.setdefault(work.op.path, []).append(work)
    layers = [_layer(path, own) for path, own in by_path.items()]
    sums = sum(stage.forward.cycles + stage.backward.cycles for stage in stages) - sum(layer.cycles for layer in layers)
    layers.append(LayerEstimate("(sums of gradients)", "elementwise", gradient=max(sums, 0.0)))
    layers.append(
        LayerEstimate(
            "(transfers)", "exchange", forward=sum(s.input_cycles for s in stages), gradient=sum(s.gradient_cycles for s in stages)
        )
    )
    return tuple(sorted(layers, key=lambda layer: -layer.cycles))


def _layer(path: str, works: Sequence[OpWork]) -> LayerEstimate:
    weights = sum(weight_gradient_work(work.op, work.target).cycles for work in works if work.backward.cycles)
    return LayerEstimate(
        path=path or "(the model itself)",
        kind=max(works, key=lambda work: work.forward.cycles + work.backward.cycles).op.kind,
        methods=tuple(sorted({plan(forward_product(w.op), w.target).method for w in works if w.op.kind in ("conv", "matmul")})),
        forward=sum(work.forward.cycles for work in works),
        recomputation=sum(work.again.cycles for work in works),
        gradient=sum(work.backward.cycles for work in works) - weights,
        weight_gradient=weights,
    )


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
