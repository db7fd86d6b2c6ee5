"""Dense matrix products on one Bow against measurements: the benchmark of PopSparse (arXiv 2303.16999), digitised to 3 %."""

from __future__ import annotations

import statistics

from ipu_model.cost.assumptions import ASSUMED_STEP_CYCLES
from ipu_model.cost.hardware import BOW
from ipu_model.cost.plan import plan
from ipu_model.cost.product import Product
from ipu_model.cost.settings import Target

# TFLOP/s of [rows, k] x [k, k] by k and rows; operands lie as the product wants them.
HALF = {
    1024: {4: 6.1, 16: 20, 64: 46, 256: 89, 1024: 120, 4096: 180, 16384: 223},
    2048: {4: 13, 16: 44, 64: 82, 256: 134, 1024: 166, 4096: 211},
}
FLOAT = {
    1024: {4: 3.8, 16: 11, 64: 21, 256: 34, 1024: 44, 4096: 56},
    2048: {4: 5.8, 16: 18, 64: 34, 256: 45, 1024: 53, 4096: 59},
}


def teraflops(rows, size, is_half):
    """Cycles of the plan, and the fixed cost of its compute sets."""
    product = Product("forward", 1, rows, 1, size, size, rows, is_half=is_half)
    chosen = plan(product, Target(BOW, "half" if is_half else "float"))
    return 2 * product.macs * BOW.clock_hz / (chosen.cycles + chosen.steps * ASSUMED_STEP_CYCLES) / 1e12


def test_dense_products():
    """Within a factor of 1.5 each, median 1.2: nothing of the planner is fitted."""
    ratios = []
    for table, is_half in ((HALF, True), (FLOAT, False)):
        for size, by_rows in table.items():
            ratios += [teraflops(rows, size, is_half) / measured for rows, measured in by_rows.items()]
    factors = [max(ratio, 1 / ratio) for ratio in ratios]
    assert max(factors) <= 1.5 and statistics.median(factors) <= 1.2
