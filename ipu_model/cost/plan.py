"""How a convolution or matrix product runs: the method, and into how many parts it is cut so that its temporaries fit.

A small planner in the manner of PopLibs': of the methods that can compute an operation, each with its outputs split over the tiles as well
as can be, and cut into parts until its temporaries keep within the available memory proportion, the one that takes the fewest cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import List, Tuple

from ipu_model.program.ops import Op

from . import assumptions as assumed
from .settings import Target

_MATRIX_UNIT_CHANNELS = 16  # input and output channels that the unit takes at a time (PL: chain of 4 x load of 4; 16 units)
_VECTOR_CHANNELS = 4  # channels that SLIC and the vector unit take at a time


@dataclass(frozen=True)
class Plan:
    """A way to run an operation.

    Attributes:
        method: "AMP" (matrix unit), "SLIC" (short kernels, one channel for each group), or "VMAC" (vector unit, depthwise).
        cycles: of the multiply-accumulates on one tile.
        parts: one after another, each with its own compute sets.
        temporary_bytes: over all tiles, of one part.
    """

    method: str
    cycles: float
    parts: int
    temporary_bytes: float

    @property
    def steps(self) -> int:
        """Compute sets."""
        return assumed.ASSUMED_CONVOLUTION_STEPS * self.parts


def plan(op: Op, target: Target) -> Plan:
    """The cheapest way to run a convolution or matrix product."""
    candidates = [_cut(op, method, cycles, target) for method, cycles in _methods(op, target)]
    return min(candidates, key=lambda candidate: candidate.cycles + candidate.steps * assumed.ASSUMED_STEP_CYCLES)


def _methods(op: Op, target: Target) -> List[Tuple[str, float]]:
    """Methods that can compute an operation, with their cycles on one tile."""
    macs = _macs_per_tile(op, _MATRIX_UNIT_CHANNELS, target.tiles)
    if op.output.dtype != "float16":
        return [("AMP", macs / target.ipu.amp_macs_per_cycle_float)]
    is_half = target.partials == "half"
    rate = target.ipu.amp_macs_per_cycle_half if is_half else target.ipu.amp_macs_per_cycle_float_partials
    methods = [("AMP", macs * _channel_padding(op) / rate)]
    if _is_depthwise(op):
        width = op.kernel[-1]
        macs = _macs_per_tile(op, _VECTOR_CHANNELS, target.tiles)
        methods.append(("SLIC", macs * (-(-width // 4) * 4 / width) / target.ipu.slic_macs_per_cycle))  # rows of 4 kernel positions
        methods.append(("VMAC", macs / target.ipu.vector_macs_per_cycle))
    return methods


def _is_depthwise(op: Op) -> bool:
    return op.kind == "conv" and op.groups > 1 and op.parameters[0].shape[1] == 1


def _macs_per_tile(op: Op, block: int, tiles: int) -> float:
    """Multiply-accumulates of the busiest tile: outputs are split by position, and by blocks of channels."""
    channels = op.output.shape[-1] if op.kind == "matmul" else op.output.shape[1]
    positions = op.output.elements // channels
    blocks = -(-channels // block)
    share = busiest_share(positions, blocks, tiles)
    return share * op.macs / (positions * blocks)


@lru_cache(maxsize=4096)
def busiest_share(positions: int, blocks: int, tiles: int) -> int:
    """Pairs of a position and a channel block on the busiest tile, when the split of both over the tiles is the best."""
    best = positions * blocks
    for split in range(1, min(blocks, tiles) + 1):
        best = min(best, -(-blocks // split) * -(-positions // (tiles // split)))
    return best


def _channel_padding(op: Op) -> float:
    """What the matrix unit computes for each useful product: groups have 16 input and output channels, or are filled up to that.

    Missing input channels are filled with kernel rows first, in a convolution of one group.
    """
    if op.kind != "conv":
        return 1.0
    channels, outputs = op.parameters[0].shape[1], op.parameters[0].shape[0] // op.groups
    unit = _MATRIX_UNIT_CHANNELS
    output_padding = -(-outputs // unit) * unit / outputs if op.groups > 1 else 1.0
    if channels >= unit:
        return -(-channels // unit) * unit / channels * output_padding
    rows = 1 if op.groups > 1 else min(op.kernel[0], -(-unit // channels))
    return unit / (channels * rows) * output_padding


def _cut(op: Op, method: str, cycles: float, target: Target) -> Plan:
    """Parts one after another, by input or output channels (PL: the only serial splits); those of a depthwise convolution cannot be."""
    copies = assumed.ASSUMED_DEPTHWISE_COPIES if _is_depthwise(op) else assumed.ASSUMED_REARRANGEMENT_COPIES
    whole = copies * (sum(tensor.bytes for tensor in op.inputs[:1]) + op.output.bytes)
    limit = target.temporary_limit_bytes_per_tile * target.tiles
    channels = 1 if _is_depthwise(op) else max(op.parameters[0].shape[:2]) if op.kind == "conv" else op.output.shape[-1]
    parts = min(max(1, -(-int(whole) // max(int(limit), 1))), channels)
    return Plan(method, cycles, parts, whole / parts)
