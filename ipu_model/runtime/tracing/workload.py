"""What the cost model is asked about: a model, its inputs, and how they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

from ipu_model.program.placement import Placement

from ..device.rules import Rule
from ..device.settings import RunSettings
from ..forward.recording import BlockStart


@dataclass(frozen=True)
class Workload:
    """One wrapped model with inputs.

    Attributes:
        inputs: (args, kwargs) of forward at micro-batch size.
        place: gives the placement of the blocks that forward begins.
        rule: of the weight update; None where nothing is trained.
    """

    model: torch.nn.Module
    inputs: Tuple[Tuple[Any, ...], Dict[str, Any]]
    is_training: bool
    place: Callable[[List[BlockStart]], Placement]
    settings: RunSettings
    rule: Optional[Rule] = None


def workload_of(executor: object, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Workload:
    """Ask an executor for its workload, for inputs of combined-batch shape.

    Raises:
        TypeError: the executor is not the IPU Model's own.
    """
    describe = getattr(type(executor), "ipu_model_workload", None)
    if describe is None:
        raise TypeError(
            f"expected a model wrapped by the IPU Model's poptorch, got {type(executor).__module__}.{type(executor).__qualname__}: "
            "estimates are made where the Poplar SDK's own poptorch is not installed."
        )
    return describe(executor, *args, **kwargs)
