"""Where a run is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping

from .metrics import Window


@dataclass
class Position:
    """Epochs and calls that are done, weight updates so far, seconds spent in calls, the best validation result, and the open window."""

    epoch: int = 0
    call: int = 0
    update: int = 0
    seconds: float = 0.0
    best_top1: float = -1.0
    best_epoch: int = 0
    window: Window = field(default_factory=Window)

    def state_dict(self) -> Dict[str, Any]:
        """What a checkpoint keeps."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """The position of a checkpoint."""
        return cls(**{**state, "window": Window(**state["window"])})
