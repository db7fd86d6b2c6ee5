"""What the options of a program say that changes its cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """A run's options, in plain numbers.

    Attributes:
        gradient_accumulation, replication_factor, device_iterations: of the call.
        schedule: "grouped" (grouped), "interleaved", or "sequential" (sharded: one stage at a time).
        is_recomputed: whether a stage computes its forward pass again for the backward pass.
        partials: type of partial sums in matrix products, "half" or "float".
        available_memory_proportion: share of a tile's memory for the temporaries of one operation.
        optimizer_state_bytes: what the optimizer keeps for each weight (RMSprop with momentum in float32: 8).
        optimizer_passes: elementwise passes over the weights in an update.
        accumulator_bytes: of a gradient sum.
        has_accumulator: whether the sum has memory of its own; a combined accumulator is the optimizer's state.
        is_optimizer_off_chip, is_optimizer_sharded: where the optimizer's state lives; sharded over the replicas.
        io_tiles: tiles that load and store while the others compute; 0 for none.
    """

    gradient_accumulation: int = 1
    replication_factor: int = 1
    device_iterations: int = 1
    schedule: str = "grouped"
    is_recomputed: bool = False
    partials: str = "float"
    available_memory_proportion: float = 0.6
    optimizer_state_bytes: int = 0
    optimizer_passes: int = 3
    accumulator_bytes: int = 4
    has_accumulator: bool = True
    is_optimizer_off_chip: bool = False
    is_optimizer_sharded: bool = False
    io_tiles: int = 0
