"""Numbers that no datasheet gives: what each stands for, and where it comes from. Reports list all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

_POINTS = "fitted on the fifteen published EfficientNet training throughputs (arXiv 2106.03640, SDK 2.0, POD16)"

# Two constants are fitted; tests/published/test_throughput.py fits them again.
ASSUMED_STEP_CYCLES = 912.0
ASSUMED_DATA_FACTOR = 2.92

# Compute sets of a norm, forward and backward: passes, reductions over tiles and the statistics.
ASSUMED_SAMPLE_NORM_STEPS = (8.0, 12.0)
ASSUMED_CHANNEL_NORM_STEPS = (6.0, 9.0)
ASSUMED_CODE_BYTES = 40_000.0
ASSUMED_CODE_BYTES_PER_STEP = 24.0
ASSUMED_TILE_IMBALANCE = 1.1


@dataclass(frozen=True)
class Assumption:
    """One constant: its name, value, whether it is fitted, what it stands for and where it comes from."""

    name: str
    value: Tuple[float, ...]
    is_fitted: bool
    meaning: str
    source: str

    @property
    def text(self) -> str:
        """Its value in words."""
        return ", ".join(f"{value:g}" for value in self.value)


def listed() -> Tuple[Assumption, ...]:
    """All assumptions, the fitted ones first."""
    return (
        Assumption(
            "ASSUMED_STEP_CYCLES",
            (ASSUMED_STEP_CYCLES,),
            True,
            "Cycles of one compute set beside its arithmetic: synchronisation, exchange set-up, supervisor code, the slowest tile.",
            _POINTS,
        ),
        Assumption(
            "ASSUMED_DATA_FACTOR",
            (ASSUMED_DATA_FACTOR,),
            True,
            "Passes over data (elementwise, norms, reductions) against PopLibs' best inner loops: odd layouts, short rows.",
            _POINTS,
        ),
        Assumption(
            "ASSUMED_SAMPLE_NORM_STEPS",
            ASSUMED_SAMPLE_NORM_STEPS,
            False,
            "Compute sets of a group or layer norm, forward and backward.",
            "counted in PopLibs' norms; between what merges and what does not, chosen by leaving sizes out",
        ),
        Assumption(
            "ASSUMED_CHANNEL_NORM_STEPS",
            ASSUMED_CHANNEL_NORM_STEPS,
            False,
            "Compute sets of a batch norm, forward and backward.",
            "counted in PopLibs' norms in the same way",
        ),
        Assumption(
            "ASSUMED_CODE_BYTES",
            (ASSUMED_CODE_BYTES,),
            False,
            "Bytes of vertex code on every tile.",
            "typical of PopVision reports of convolutional networks",
        ),
        Assumption(
            "ASSUMED_CODE_BYTES_PER_STEP",
            (ASSUMED_CODE_BYTES_PER_STEP,),
            False,
            "Bytes of exchange code, control code and vertex state on every tile for each compute set.",
            "typical of PopVision reports of convolutional networks",
        ),
        Assumption(
            "ASSUMED_TILE_IMBALANCE",
            (ASSUMED_TILE_IMBALANCE,),
            False,
            "Bytes of activations on the fullest tile against the mean.",
            "chosen so that the published largest micro batches fit and twice as much does not",
        ),
    )
