"""What PopTorch programs take from PopART: enumerations whose numbers they pass to `Options._Popart.set`, and the log level."""

from __future__ import annotations

import logging
from enum import IntEnum


class SyntheticDataMode(IntEnum):
    """What stands in for data from the host."""

    Off = 0
    Zeros = 1
    RandomNormal = 2


class RecomputationType(IntEnum):
    """What is computed again for the backward pass."""

    NoRecompute = 0
    Standard = 1
    NormOnly = 2
    Pipeline = 3
    RecomputeAll = 4


class AccumulateOuterFragmentSchedule(IntEnum):
    """How the weight update is scheduled."""

    Scheduler = 0
    Serial = 1
    OverlapCycleOptimized = 2
    OverlapMemoryOptimized = 3


class SubgraphCopyingStrategy(IntEnum):
    """When the inputs of a subgraph are copied."""

    OnEnterAndExit = 0
    JustInTime = 1


class VirtualGraphMode(IntEnum):
    """How operations get their IPU."""

    Off = 0
    Manual = 1
    Auto = 2
    ExecutionPhases = 3


class MergeVarUpdateType(IntEnum):
    """Which weight updates are merged."""

    Off = 0
    All = 1
    AutoLoose = 2
    AutoTight = 3


class BatchSerializationBatchSchedule(IntEnum):
    """Order of the parts of a serialised batch."""

    Scheduler = 0
    Isomorphic = 1
    OverlapOnIo = 2
    OverlapOnCompute = 3


class Instrumentation(IntEnum):
    """Where cycles are counted."""

    Outer = 0
    Inner = 1


class GradientTensorTrackingMethod(IntEnum):
    """Which gradients automatic loss scaling looks at."""

    AllNonViewChangingGradientTensors = 0
    ConvAndMatmulGradients = 1
    GradientsOfUserSpecifiedTensors = 2


class _Logger:
    """PopART's logger."""

    def setLevel(self, level: str) -> None:
        """Show messages of PopART from this level on; the IPU Model has none."""
        levels = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40, "CRITICAL": 50, "OFF": 100}
        if level.upper() not in levels:
            raise ValueError(f"Unknown log level {level!r}: expected one of {', '.join(levels)}")
        logging.getLogger("popart").setLevel(levels[level.upper()])


def getLogger(name: str = "all") -> _Logger:
    """PopART's logger."""
    return _Logger()


def versionString() -> str:
    """Version of the SDK that is modelled."""
    return "3.4.0"
