"""How a matrix product runs: the method, and how it is split over the tiles, so that its temporaries fit.

A planner in the manner of PopLibs' (poplin, ConvPlan): of all ways to split a product over the tiles, by each method that can compute it,
the one that takes the fewest cycles while the temporaries of a tile keep within the available memory proportion. Where none does, the
product is cut into parts one after another. Cycles are the leading terms of PopLibs' own estimates (poplin, PerformanceEstimation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Iterator, NamedTuple, Tuple

import numpy as np

from .product import WEIGHT_GRADIENT, Product
from .settings import Target

_WORKERS = 6
_SYNC_CYCLES = 600  # of all tiles, before partial sums are added up (Poplar's targets)
_LOAD_BYTES_PER_CYCLE = 8  # of weights into the matrix unit
_SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 46, 64, 92, 128, 184, 245, 368, 490, 736, 1472)
_PARTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Plan:
    """A way to run a product. Cycles are of the busiest tile.

    Attributes:
        method: "AMP" (matrix unit), "SLIC" (short kernels, one channel for each group), or "VMAC" (vector unit, depthwise).
        compute_cycles: of the multiply-accumulates, with what the method takes to begin.
        exchange_cycles: of operands and partial sums.
        reduce_cycles: of adding partial sums up.
        parts: one after another, each with its own compute sets.
        steps: compute sets.
        temporary_bytes_per_tile: operands and partial sums of one part.
    """

    method: str
    compute_cycles: float
    exchange_cycles: float
    reduce_cycles: float
    parts: int
    steps: int
    temporary_bytes_per_tile: float

    @property
    def cycles(self) -> float:
        """All of them, without the fixed cost of compute sets."""
        return self.compute_cycles + self.exchange_cycles + self.reduce_cycles


@lru_cache(maxsize=8192)
def plan(product: Product, target: Target) -> Plan:
    """The fastest way to run a product whose temporaries fit; the one with the smallest temporaries where none fits."""
    limit = target.temporary_limit_bytes_per_tile
    candidates = []
    for parts in _PARTS:
        ways = (product, product.swapped()) if product.role == WEIGHT_GRADIENT else (product,)
        candidates = [_best(way, method, parts, target) for way in ways for method in _methods(way, target)]
        fitting = [candidate for candidate in candidates if candidate.temporary_bytes_per_tile <= limit]
        if fitting:
            return min(fitting, key=lambda candidate: candidate.cycles + _SYNC_CYCLES * candidate.steps)
    return min(candidates, key=lambda candidate: candidate.temporary_bytes_per_tile)


class _Method(NamedTuple):
    """What a method computes at a time.

    Attributes:
        groups, inputs, outputs: of a block.
        filling: reductions that a block takes in the place of inputs.
        load_cycles: of a block's weights, and of beginning it on all workers.
        run_cycles, row_cycles: on a worker, of a run of rows and of one row of a block.
        result_cycles: on a worker, of a row of results, whatever it sums over.
    """

    name: str
    groups: int
    inputs: int
    outputs: int
    filling: int
    load_cycles: float
    run_cycles: float
    row_cycles: float
    result_cycles: float = 0.0


def _methods(product: Product, target: Target) -> Iterator[_Method]:
    """Those that can compute a product."""
    yield _matrix_unit(product, 16 if target.partials == "half" or not product.is_half else 8)
    if product.is_half and target.partials == "half":
        yield _matrix_unit(product, 8)  # half of the units, in smaller blocks
    if product.outputs == 1 and product.groups > 1 and product.is_half:
        if product.kernel_width and not product.is_dilated:
            passes = 1 if target.partials == "half" else 2  # float partial sums have half as many units
            yield _Method("SLIC", 4, 1, 1, 4, 16 + 18, 30.0 * passes, 1.0 * passes)
        yield _Method("VMAC", 8, 1, 1, 1, 0, 0.0, 3.0, 25.0)
        if product.inputs == 1:  # groups side by side as one product, with zeros for what they do not share (PL: combineConvGroups)
            unit = _matrix_unit(product, 16 if target.partials == "half" else 8)
            yield unit._replace(groups=unit.outputs, inputs=1, outputs=1, filling=1)


def _matrix_unit(product: Product, outputs: int) -> _Method:
    """Blocks of 16 inputs in half, 8 in float, and of 16 outputs, or 8 where half of the units are used, as float partial sums need.

    A row of a block takes 4 worker cycles, 8 in float. Inputs come in groups of 4, 8 or 16 (2, 4 or 8 in float); reductions that the
    operand has side by side (kernel rows) fill what a group leaves, and zeros fill the rest.
    """
    is_half = product.is_half
    deepest = 16 if is_half else 8
    groupings = [(size, min(deepest // size, product.filling)) for size in (deepest, deepest // 2, deepest // 4)]
    inputs, filling = min(groupings, key=lambda way: -(-product.inputs // way[0]) * -(-product.reductions // way[1]))
    load = outputs * deepest * (2 if is_half else 4) / _LOAD_BYTES_PER_CYCLE + 25
    run = 19.0 if product.row_length >= product.rows else 28.0
    return _Method("AMP", 1, inputs, outputs, filling, load, run, 4.0 if is_half else 8.0)


def _best(product: Product, method: _Method, parts: int, target: Target) -> Plan:
    """The fastest split over the tiles that keeps within the limit, or the smallest."""
    groups, outputs = -(-product.groups // method.groups), -(-product.outputs // method.outputs)
    blocks = -(-product.inputs // method.inputs) * _reduction_blocks(product, method)
    cut_outputs = min(parts, outputs)
    cut_groups = min(-(-parts // cut_outputs), groups)
    split = _splits(-(-groups // cut_groups), product.rows, blocks, -(-outputs // cut_outputs), target.tiles)
    cost = _cost(product, method, split, 2 if product.is_half and target.partials == "half" else 4)
    cycles = cost.compute + cost.exchange + cost.reduce + _SYNC_CYCLES * (split.blocks_over > 1)
    fits = cost.temporary <= target.temporary_limit_bytes_per_tile
    index = int(np.argmin(np.where(fits, cycles, np.inf)) if fits.any() else np.argmin(cost.temporary))
    count = cut_groups * cut_outputs
    return Plan(
        method=method.name,
        compute_cycles=float(cost.compute[index]) * count,
        exchange_cycles=float(cost.exchange[index]) * count,
        reduce_cycles=float(cost.reduce[index]) * count,
        parts=count,
        steps=count * (2 if split.blocks_over[index] > 1 else 1),
        temporary_bytes_per_tile=float(cost.temporary[index]),
    )


def _reduction_blocks(product: Product, method: _Method) -> int:
    """Blocks of what is summed over beside the inputs; SLIC's go along the rows of a kernel."""
    if method.name == "SLIC":
        return product.reductions // product.kernel_width * -(-product.kernel_width // method.filling)
    return -(-product.reductions // method.filling)


class _Split(NamedTuple):
    """Shares of the busiest tile, over all candidates; `over` says over how many tiles a dimension is split."""

    groups: np.ndarray
    rows: np.ndarray
    blocks: np.ndarray
    outputs: np.ndarray
    rows_over: np.ndarray
    blocks_over: np.ndarray
    outputs_over: np.ndarray


@lru_cache(maxsize=1024)
def _grid(groups: int, blocks: int, outputs: int, tiles: int) -> Tuple[np.ndarray, ...]:
    """Splits of groups, blocks and outputs that do not take more than all tiles."""
    choices = [np.array([split for split in _SPLITS if split <= size]) for size in (groups, blocks, outputs)]
    mesh = [axis.ravel() for axis in np.meshgrid(*choices, indexing="ij")]
    taken = mesh[0] * mesh[1] * mesh[2] <= tiles
    return tuple(axis[taken] for axis in mesh)


def _splits(groups: int, rows: int, blocks: int, outputs: int, tiles: int) -> _Split:
    """Rows get the tiles that the others leave."""
    over_groups, over_blocks, over_outputs = _grid(groups, blocks, outputs, tiles)
    over_rows = np.minimum(tiles // (over_groups * over_blocks * over_outputs), rows)
    return _Split(
        groups=-(-groups // over_groups),
        rows=-(-rows // over_rows),
        blocks=-(-blocks // over_blocks),
        outputs=-(-outputs // over_outputs),
        rows_over=over_rows,
        blocks_over=over_blocks,
        outputs_over=over_outputs,
    )


class _Cost(NamedTuple):
    compute: np.ndarray
    exchange: np.ndarray
    reduce: np.ndarray
    temporary: np.ndarray


def _cost(product: Product, method: _Method, split: _Split, partial_element: int) -> _Cost:
    """Cycles and bytes of the busiest tile for every split."""
    element = 2 if product.is_half else 4
    rows = -(-split.rows // _WORKERS)
    runs = -(-rows // product.row_length)
    passes = split.groups * split.blocks * split.outputs
    if method.result_cycles:  # workers share groups as well as rows
        worker = -(-split.groups * split.rows // _WORKERS) * (split.blocks * method.row_cycles + method.result_cycles)
    else:
        worker = passes * (runs * method.run_cycles + rows * method.row_cycles)
    compute = 50 + passes * method.load_cycles + _WORKERS * worker
    results = split.groups * split.rows * split.outputs * method.outputs * method.groups
    depth = split.blocks * method.filling * method.inputs
    moving = split.groups * method.groups * split.rows * depth / np.minimum(product.reuse, depth) * element
    weights = split.groups * method.groups * depth * split.outputs * method.outputs * element
    partials = results * partial_element
    is_reduced = split.blocks_over > 1
    exchange = moving / np.where(split.outputs_over % 2 == 0, 8, 4) + weights * (1 - 1 / split.rows_over) / 4 + partials * is_reduced / 4
    vectors = results / split.blocks_over / (8 if partial_element == 2 else 4)
    reduce = np.where(is_reduced, vectors * (3 * split.blocks_over + 8) + 33 * _WORKERS, 0.0)
    return _Cost(compute, exchange, reduce, moving + weights + partials * (1 + is_reduced))
