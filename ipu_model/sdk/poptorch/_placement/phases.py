"""Phased execution: one part of the model after another, the tensors in between kept outside of the chip. Values are unchanged."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ipu_model.program.placement import PlacedBlock
from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward.recording import BlockStart

from ..enums import Liveness
from .blocks import ExecutionStrategy, Stage


class Phase:
    """Stages that are on the chip together: given as stages, or as the names of the blocks of a single stage."""

    def __init__(self, *arg: Any) -> None:
        parts = list(arg[0]) if len(arg) == 1 and isinstance(arg[0], (list, tuple)) else list(arg)
        are_stages = bool(parts) and all(isinstance(part, Stage) for part in parts)
        are_blocks = bool(parts) and all(isinstance(part, str) for part in parts)
        assert are_stages or are_blocks, f"Phase takes either Stages or names of blocks, got {parts!r}"
        self.stages: List[Stage] = parts if are_stages else [Stage(*parts)]

    def stage(self, index: int) -> Stage:
        """A stage by position."""
        return self.stages[index]

    def ipus(self, *ids: int) -> Phase:
        """IPUs of the stages, in order."""
        assert len(ids) == len(self.stages), f"Phase.ipus: expected {len(self.stages)} IPUs, one for each stage, got {len(ids)}"
        for stage, ipu in zip(self.stages, ids):
            stage.ipu(ipu)
        return self


class _PhasedExecution(ExecutionStrategy):
    """What serial and parallel phases share."""

    is_serial = False

    def __init__(self, *phases: Any) -> None:
        super().__init__()
        assert phases, f"{type(self).__name__} needs at least one phase"
        self._phases = [_as_phase(phase) for phase in phases]
        self._separate_backward_phase = False
        self._liveness = Liveness.AlwaysLive
        self._place_of_block: Dict[str, Tuple[int, int, Stage]] = {}
        for number, phase in enumerate(self._phases):
            for index, stage in enumerate(phase.stages):
                for block_id in stage.blocks:
                    assert block_id not in self._place_of_block, f"block {block_id!r} is in two stages"
                    self._place_of_block[block_id] = (number, index, stage)

    def phase(self, phase: int) -> Phase:
        """A phase by position."""
        assert isinstance(phase, int) and phase >= 0, f"phase takes a non-negative int, got {phase!r}"
        return self._phases[phase]

    def stage(self, block_id: str) -> Stage:
        """The stage of a block."""
        assert block_id in self._place_of_block, f"unknown block {block_id!r}; known: {sorted(self._place_of_block)}"
        return self._place_of_block[block_id][2]

    def useSeparateBackwardPhase(self, use: bool = True) -> _PhasedExecution:
        """Whether the last phase's backward pass is a phase of its own (recorded)."""
        assert isinstance(use, bool), f"useSeparateBackwardPhase takes a bool, got {use!r}"
        self._separate_backward_phase = use
        return self

    def place_blocks(self, block_starts: List[BlockStart]) -> List[PlacedBlock]:
        """Phase and IPU of each block."""
        placed = []
        for start in block_starts:
            stage = self.stage(start.block_id)
            number, position, _ = self._place_of_block[start.block_id]
            chosen = stage.chosen_ipu if stage.chosen_ipu is not None else start.ipu_id
            placed.append(PlacedBlock(start.block_id, number, self._default_ipu(number, position) if chosen is None else chosen))
        return placed

    def backendOptions(self) -> Dict[str, int]:
        """What `Options.toDict` says of the strategy."""
        return {
            "execution_mode": 2,
            "separate_backward_phase": self._separate_backward_phase,
            "tensors_liveness": int(self._liveness),
            "serial_phases_execution": self.is_serial,
        }

    def _default_ipu(self, phase: int, position: int) -> int:
        raise NotImplementedError


class SerialPhasedExecution(_PhasedExecution):
    """All phases on the same IPUs."""

    is_serial = True

    def setTensorsLiveness(self, liveness: Liveness) -> SerialPhasedExecution:
        """When a phase's tensors leave the chip (recorded)."""
        assert isinstance(liveness, Liveness), f"setTensorsLiveness takes a Liveness, got {liveness!r}"
        self._liveness = liveness
        return self

    def _default_ipu(self, phase: int, position: int) -> int:
        return position


class ParallelPhasedExecution(_PhasedExecution):
    """Even phases on one set of IPUs, odd phases on another, so that loading and computing overlap."""

    def sendTensorsOffChipAfterFwd(self, off_chip: bool = True) -> ParallelPhasedExecution:
        """Whether tensors leave the chip after the forward pass (recorded)."""
        assert isinstance(off_chip, bool), f"sendTensorsOffChipAfterFwd takes a bool, got {off_chip!r}"
        self._liveness = Liveness.OffChipAfterFwd if off_chip else Liveness.AlwaysLive
        return self

    def place_blocks(self, block_starts: List[BlockStart]) -> List[PlacedBlock]:
        """Phase and IPU of each block; `Error` for an even phase on an odd IPU, or the reverse."""
        placed = super().place_blocks(block_starts)
        for block in placed:
            if block.ipu % 2 != block.stage % 2:
                even = "even" if block.stage % 2 == 0 else "odd"
                raise Error(
                    f"ParallelPhasedExecution: phase {block.stage} is {even} and must run on {even} IPUs, its block {block.block_id!r} is "
                    f"on IPU {block.ipu}."
                )
        return placed

    def _default_ipu(self, phase: int, position: int) -> int:
        return 2 * position + phase % 2


def _as_phase(description: Any) -> Phase:
    """A phase, given as one, as a stage, as stages, as the id of a block, or as ids of blocks: one stage."""
    if isinstance(description, Phase):
        return description
    if isinstance(description, (str, Stage)):
        return Phase(description)
    assert isinstance(description, (list, tuple)), f"expected a Phase, stages or names of blocks, got {description!r}"
    return Phase(*[Stage(*part) if isinstance(part, (list, tuple)) else part for part in description])
