"""Where the blocks of a model run: pipeline stages, IPUs, and the rules that their numbers must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

MAX_IPUS_PER_PROCESS = 64  # PopTorch's own limit


@dataclass(frozen=True)
class PlacedBlock:
    """One block in execution order: its name, its pipeline stage, its IPU within a replica."""

    block_id: str
    stage: int
    ipu: int


@dataclass(frozen=True)
class Stages:
    """The pipeline as the cost model sees it: a stage is an order in time, an IPU a place with memory, which several stages may share.

    Attributes:
        of_block: stage of each block, from 0.
        ipus: IPU of each stage within a replica.
    """

    of_block: Tuple[int, ...] = (0,)
    ipus: Tuple[int, ...] = (0,)

    @classmethod
    def one_ipu_each(cls, of_block: Tuple[int, ...]) -> Stages:
        """Stage n on IPU n."""
        return cls(of_block, tuple(range(max(of_block) + 1)))

    @property
    def number(self) -> int:
        """How many stages there are."""
        return len(self.ipus)

    @property
    def used_ipus(self) -> Tuple[int, ...]:
        """IPUs that run a stage, in the order of their numbers."""
        return tuple(sorted(set(self.ipus)))

    @property
    def ipus_per_replica(self) -> int:
        """IPUs that one replica occupies: ids count from 0, so an unused low id is occupied too."""
        return max(self.ipus) + 1

    def on_ipu(self, ipu: int) -> Tuple[int, ...]:
        """Stages that an IPU runs."""
        return tuple(stage for stage, place in enumerate(self.ipus) if place == ipu)


@dataclass(frozen=True)
class Placement:
    """The blocks of a captured model in execution order; empty for a model on one IPU."""

    blocks: Tuple[PlacedBlock, ...] = ()

    @property
    def stage_ipus(self) -> Tuple[int, ...]:
        """IPU of each pipeline stage: one stage is at the start, on IPU 0, and one more at each begin of a block on another IPU."""
        ipus: List[int] = [0]
        for block in self.blocks:
            if ipus[-1] != block.ipu:
                ipus.append(block.ipu)
        return tuple(ipus)

    @property
    def stages(self) -> Stages:
        """Stages in the order in which they run: runs of equal stage and IPU in execution order, whatever their numbers are."""
        of_block: List[int] = []
        places: List[Tuple[int, int]] = []
        for block in self.blocks:
            if not places or places[-1] != (block.stage, block.ipu):
                places.append((block.stage, block.ipu))
            of_block.append(len(places) - 1)
        return Stages(tuple(of_block), tuple(ipu for _, ipu in places)) if self.blocks else Stages()

    @property
    def num_stages(self) -> int:
        """Pipeline stages of the forward pass."""
        return len(self.stage_ipus)

    @property
    def ipus_per_replica(self) -> int:
        """IPUs that one replica occupies: ids count from 0, so an unused low id is occupied too."""
        return self.stages.ipus_per_replica

    def num_ipus(self, replication_factor: int, is_rounded: bool) -> int:
        """IPUs of the whole program; ValueError when the number cannot be had.

        `is_rounded` rounds up to a power of two, as IPUs are only handed out in such numbers.
        """
        needed = self.ipus_per_replica * replication_factor
        granted = 1 << (needed - 1).bit_length()
        if granted != needed and not is_rounded:
            raise ValueError(
                f"The model specifies the use of {needed} IPUs ({self.ipus_per_replica} per replica x {replication_factor} replicas), but "
                f"a power of two must be reserved, at most {MAX_IPUS_PER_PROCESS} per process. Set Options.autoRoundNumIPUs(True) to "
                f"reserve {granted}."
            )
        if needed > MAX_IPUS_PER_PROCESS:
            raise ValueError(
                f"Too many IPUs requested: {self.ipus_per_replica} per replica x {replication_factor} replicas = {needed}, "
                f"at most {MAX_IPUS_PER_PROCESS} in one process. Use fewer replicas, or several processes."
            )
        return granted

    def check_pipeline_depth(self, gradient_accumulation: int, device_iterations: int, is_training: bool) -> None:
        """ValueError when there are too few micro batches in one call to fill the pipeline.

        A training pipeline of n stages holds 2n - 1 micro batches at once, an inference pipeline n.
        """
        if self.num_stages == 1:
            return
        needed = 2 * self.num_stages - 1 if is_training else self.num_stages
        stages = f"PipelinedExecution of {self.num_stages} stages in the forward pass"
        if is_training and gradient_accumulation < needed:
            raise ValueError(
                "poptorch.Options().Training.gradientAccumulation must be greater than or equal to the number of pipeline stages "
                f"({needed}) when using {stages}, with {self.num_stages - 1} additional ones in training; it is {gradient_accumulation}."
            )
        if not is_training and device_iterations < needed:
            raise ValueError(
                f"poptorch.Options().deviceIterations must be greater than or equal to the number of pipeline stages ({needed}) when using "
                f"{stages}; it is {device_iterations}."
            )
