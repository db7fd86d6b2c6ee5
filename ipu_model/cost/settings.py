"""What the options of a program say that changes its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Tuple

from .hardware import Ipu

DEFAULT_MEMORY_PROPORTION = 0.6  # PopLibs' own


@dataclass(frozen=True)
class Target:
    """What operations run on: a chip, and how its compiler was told to use it.

    Attributes:
        partials: type of partial sums in matrix products, "half" or "float".
        memory_proportion: share of a tile's memory for the temporaries of one operation.
    """

    ipu: Ipu
    partials: str = "float"
    memory_proportion: float = DEFAULT_MEMORY_PROPORTION

    @property
    def tiles(self) -> int:
        """Tiles that compute."""
        return self.ipu.tiles

    @property
    def temporary_limit_bytes_per_tile(self) -> float:
        """What the temporaries of one convolution or product may take of a tile."""
        return self.memory_proportion * self.ipu.sram_bytes_per_tile


@dataclass(frozen=True)
class OptimizerCost:
    """What a weight update keeps and does for each weight.

    Attributes:
        state_bytes: of the optimizer's state, each of its tensors in its own type.
        gradient_bytes: of the gradient sum, which is also what is reduced over the replicas.
        is_sum_in_state: whether the gradients are summed into a part of the state (a combined accumulator).
        passes: elementwise passes over the weights in an update.
    """

    state_bytes: float = 0.0
    gradient_bytes: float = 4.0
    is_sum_in_state: bool = False
    passes: float = 3.0


@dataclass(frozen=True)
class Settings:
    """A run's options, in plain numbers.

    Attributes:
        gradient_accumulation, replication_factor, device_iterations: of the call.
        schedule: "grouped", "interleaved", or "sequential" (sharded: one stage at a time).
        is_recomputed: whether a stage computes its forward pass again for the backward pass.
        partials: type of partial sums in matrix products, "half" or "float".
        memory_proportions: available memory proportion of each IPU of a replica; PopLibs' default for those that are not in it.
        optimizer: what a weight update keeps and does.
        is_optimizer_off_chip, is_optimizer_sharded: where the optimizer's state lives; sharded over the replicas.
        io_tiles: tiles that load and store while the others compute; 0 for none.
    """

    gradient_accumulation: int = 1
    replication_factor: int = 1
    device_iterations: int = 1
    schedule: str = "grouped"
    is_recomputed: bool = False
    partials: str = "float"
    memory_proportions: Tuple[float, ...] = ()
    optimizer: OptimizerCost = OptimizerCost()
    is_optimizer_off_chip: bool = False
    is_optimizer_sharded: bool = False
    io_tiles: int = 0

    def memory_proportion(self, ipu: int) -> float:
        """Available memory proportion of an IPU of a replica."""
        return self.memory_proportions[ipu] if ipu < len(self.memory_proportions) else DEFAULT_MEMORY_PROPORTION

    def target(self, chip: Ipu, ipu: int) -> Target:
        """What operations on an IPU of a replica run on; I/O tiles do not compute."""
        return Target(replace(chip, tiles=chip.tiles - self.io_tiles), self.partials, self.memory_proportion(ipu))

    def num_micro_batches(self, is_training: bool) -> int:
        """Of a weight update, or of the device iterations of a call."""
        return self.gradient_accumulation if is_training else self.device_iterations
