"""How far an estimate of throughput is to be trusted: the errors of points that the fit had not seen, and what lies outside of them."""

from __future__ import annotations

import math
from typing import List

from ipu_model.program.ops import Program

from .estimate import Estimate

# Errors of the fifteen published training throughputs, each estimated with the constants fitted on the other fourteen: by size (B0, B2,
# B4), G1-GN, G16-GN, G16-GN-half, G16-LN+PN, G16-LN+PN-half. tests/published/test_throughput.py derives them again.
LEAVE_ONE_OUT_ERRORS = (
    (0.023, 0.025, 0.049, 0.070, -0.023),
    (0.012, 0.006, 0.004, 0.023, 0.012),
    (0.089, -0.075, -0.042, -0.067, -0.027),
)
_COMPARED_MICRO_BATCHES = (2, 32)  # of what was compared: B5's 2, and 32 in inference


def expected_error() -> float:
    """What a throughput may be off by, as a share of it: twice the root mean square of the errors left out, which holds for 19 of 20."""
    errors = [error for row in LEAVE_ONE_OUT_ERRORS for error in row]
    return 2 * math.sqrt(sum(error * error for error in errors) / len(errors))


def extrapolations(program: Program, estimate: Estimate) -> List[str]:
    """Sentences on what lies outside of what the model was compared with; empty where nothing does."""
    lines: List[str] = []
    low, high = _COMPARED_MICRO_BATCHES
    size = program.micro_batch_size
    if not low <= size <= high:
        lines.append(f"The micro batch of {size} is outside of those that were compared with published figures ({low} to {high}).")
    by_convolution = sum(op.macs for op in program.ops if op.kind == "conv")
    if by_convolution < 0.5 * max(program.macs, 1):
        lines.append("Only convolutional networks were compared with published figures; this one multiplies mostly in matrix products.")
    if not any(op.output.dtype == "float16" for op in program.ops):
        lines.append("Only programs in half were compared with published figures.")
    if estimate.machine.ipu.name == "Bow" and estimate.is_training:
        lines.append("Releases of 2022 and later, which Bow machines run, were up to 11 % faster than the estimate, which is of SDK 2.0.")
    if estimate.settings.schedule != "grouped" and len(estimate.stages) > 1:
        lines.append(f"Published pipelines ran the grouped schedule, not the {estimate.settings.schedule} one.")
    return lines
