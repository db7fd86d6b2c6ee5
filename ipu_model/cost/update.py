"""The weight update: what is computed of parameters alone, the reduction over the replicas, the optimizer's passes."""

from __future__ import annotations

from ipu_model.program.ops import Program

from .hardware import Ipu
from .settings import Settings
from .work import backward_work, forward_work


def update_cycles(program: Program, settings: Settings, chip: Ipu) -> float:
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
