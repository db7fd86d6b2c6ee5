"""Numbers that no datasheet gives. The fitted ones come from `tests/published/test_throughput.py`'s points; all are listed in reports."""

from __future__ import annotations

from typing import Dict, Tuple

# ---- fitted on the fifteen published EfficientNet training throughputs (B0, B2, B4; arXiv 2106.03640, SDK 2.0, POD16)

# One compute set beside its arithmetic: synchronisation, exchange set-up, supervisor code, waiting for the slowest tile.
ASSUMED_STEP_CYCLES = 880.0
# Passes over data (elementwise, norms, reductions, rearrangement) against PopLibs' best inner loops: unfused operations, odd layouts.
ASSUMED_DATA_FACTOR = 2.60

# ---- assumed

# Compute sets of one convolution: rearrange in, multiply, reduce partial sums, rearrange out.
ASSUMED_CONVOLUTION_STEPS = 4
# Compute sets of a norm: mean, centre, squares, deviation, scale, affine, and those of its two reductions over tiles.
ASSUMED_NORM_STEPS_FORWARD = 8
ASSUMED_NORM_STEPS_BACKWARD = 14
# Program and vertex state on every tile: a fixed part and so much for each compute set.
ASSUMED_CODE_BYTES = 40_000
ASSUMED_CODE_BYTES_PER_STEP = 24
# Copies of an operation's largest tensors that live while it runs: rearranged inputs and outputs, exchange buffers.
ASSUMED_REARRANGEMENT_COPIES = 1.0
# The same for depthwise convolutions, whose rows are padded and whose partial sums lie beside.
ASSUMED_DEPTHWISE_COPIES = 2.2


def listed() -> Dict[str, Tuple[float, bool]]:
    """All assumptions: name to (value, whether it is fitted)."""
    fitted = ("ASSUMED_STEP_CYCLES", "ASSUMED_DATA_FACTOR")
    return {name: (float(value), name in fitted) for name, value in sorted(globals().items()) if name.startswith("ASSUMED_")}
