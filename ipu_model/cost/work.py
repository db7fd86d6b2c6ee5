"""Cycles of single operations, forward and backward: one formula for each kind.

Cycles are of one IPU on which an operation's elements lie evenly on all tiles. Inner loops are PopLibs' (popops and popnn estimators): with
six workers that share a tile, c worker cycles for a vector of 4 halves (2 floats) are c / 4 (c / 2) tile cycles for each element.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import Callable, Dict, List, Tuple

from ipu_model.program.ops import Op, Tensor

from . import assumptions as assumed
from .plan import plan
from .product import WEIGHT_GRADIENT, Product, forward_product, gradient_products
from .settings import Target


@dataclass(frozen=True)
class Work:
    """Cycles of one IPU by what they go into; adds and scales. `steps` counts compute sets, whose fixed cost is `overhead`."""

    matrix: float = 0.0
    elementwise: float = 0.0
    norm: float = 0.0
    reduction: float = 0.0
    rearrangement: float = 0.0
    exchange: float = 0.0
    overhead: float = 0.0
    steps: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*map(operator.add, _values(self), _values(other)))

    def __mul__(self, factor: float) -> Work:
        return Work(*[value * factor for value in _values(self)])

    @property
    def cycles(self) -> float:
        """All of them."""
        return self.matrix + self.elementwise + self.norm + self.reduction + self.rearrangement + self.exchange + self.overhead

    def by_kind(self) -> Dict[str, float]:
        """Cycles by name, without the count of steps."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "steps"}


_values = operator.attrgetter(*(item.name for item in fields(Work)))


def steps(count: float) -> Work:
    """The fixed cost of compute sets."""
    return Work(overhead=count * assumed.ASSUMED_STEP_CYCLES, steps=count)


def _pass(tensor: Tensor, target: Target, vector_cycles: float) -> float:
    """Cycles of one pass over a tensor."""
    lanes = 4 if tensor.dtype in ("float16", "uint8", "int8", "bool") else 2
    return assumed.ASSUMED_DATA_FACTOR * tensor.elements / target.tiles * vector_cycles / lanes


# Worker cycles for a vector: of the operation, and of the gradient of each operand (PL popopsCycleEstimators; half swish 5 / 9, float
# 11 / 15 for 2). The gradient of a sum is the result's own.
_VECTOR_CYCLES: Dict[str, Tuple[float, float]] = {
    "silu": (5, 9),
    "sigmoid": (4, 3),
    "relu": (2, 3),
    "tanh": (4, 3),
    "gelu": (11, 15),
    "exp": (4, 3),
    "mul": (3, 3),
    "add": (3, 0),
    "sub": (3, 0),
    "div": (21, 21),
    "addcmul": (6, 3),
    "sqrt": (23, 6),
    "rsqrt": (19, 6),
    "pow": (4, 6),
}
_OTHER = (3, 3)
_REDUCTION_CYCLES = 0.5  # PL: one for 8 halves


def addition_work(tensor: Tensor, target: Target) -> Work:
    """A sum in place."""
    return Work(elementwise=_pass(tensor, target, 3)) + steps(1)


_TWO_OPERATIONS = ("addcmul",)  # a product and a sum: PopLibs has no single pass for operands of three shapes


def _elementwise(op: Op, target: Target) -> Work:
    cycles, _ = _VECTOR_CYCLES.get(op.name, _OTHER)
    return Work(elementwise=_pass(op.output, target, cycles)) + steps(1 + (op.name in _TWO_OPERATIONS) + len(_broadcast(op)))


def _broadcast(op: Op) -> List[Tensor]:
    """Operands of another shape than the result, such as a value for each channel: each is copied to all tiles that need it first."""
    return [tensor for tensor in (*op.inputs, *op.parameters) if 1 < tensor.elements < op.output.elements]


def _elementwise_backward(op: Op, target: Target) -> Work:
    """A pass for each operand whose gradient is not the result's own; the gradient of a broadcast operand is summed over all else."""
    _, cycles = _VECTOR_CYCLES.get(op.name, _OTHER)
    gradients = op.input_gradients + (0 if op.is_once_per_update else op.parameter_gradients)
    is_whole = bool(op.inputs) and op.inputs[0].elements == op.output.elements and op.input_gradients > 0
    sums = max(min(len(_broadcast(op)), gradients - is_whole), 0)
    work = (Work(reduction=_pass(op.output, target, _REDUCTION_CYCLES)) + steps(2)) * sums
    if cycles:
        work += (Work(elementwise=_pass(op.output, target, cycles)) + steps(1)) * gradients
        work += steps(len(_broadcast(op))) * (gradients - sums)
    return work


_REGROUP_BYTES_PER_CYCLE, _TRANSPOSE_BYTES_PER_CYCLE = 8, 2  # PL ConvModel; a quarter of the bytes is copied twice


def _moved(tensor: Tensor, target: Target, bytes_per_cycle: float) -> Work:
    """A tensor into another layout: exchanged, and copied at a rate that depends on what lies side by side before and after."""
    data = tensor.bytes / target.tiles
    copied = data * 1.25 / bytes_per_cycle
    return Work(rearrangement=copied, exchange=data / target.ipu.exchange_bytes_per_cycle) + steps(1)


def product_work(product: Product, target: Target) -> Work:
    """Cycles of a matrix product with the rearrangement of its operands."""
    chosen = plan(product, target)
    work = Work(matrix=chosen.compute_cycles, exchange=chosen.exchange_cycles, reduction=chosen.reduce_cycles) + steps(chosen.steps)
    for tensor in product.moved:
        work += _moved(tensor, target, _REGROUP_BYTES_PER_CYCLE)
    for tensor in product.transposed:
        work += _moved(tensor, target, _TRANSPOSE_BYTES_PER_CYCLE)
    return work


@dataclass(frozen=True)
class _NormCost:
    """Worker cycles for a vector, and compute sets, forward and backward; `affine` cycles for each of scale and shift, both ways."""

    forward: float
    backward: float
    affine: float
    steps_forward: float
    steps_backward: float


# PL Norms, PopNN, in cycles of a vector. Of samples, stable: reductions for means and squares (0.5 each), values centred before the
# squares (3), taken away and scaled (3 + 3). Backward: whitened again (6), times the gradients (3), joint reductions (1 + 1), and the
# gradient (copy 2, products 3 + 3, sums 3 + 3). Of channels, along the innermost dimension: reductions (0.5 + 0.5), whitening (1 + 2);
# backward: whitened again (3), product (3), joint reduction (1), gradient (1 + 2 + 2). Scale and shift: 1 + 2.
_OF_SAMPLES = _NormCost(10, 25, 1.5, *assumed.ASSUMED_SAMPLE_NORM_STEPS)
_OF_CHANNELS = _NormCost(4, 12, 1.5, *assumed.ASSUMED_CHANNEL_NORM_STEPS)


def _norm_cost(op: Op) -> _NormCost:
    return _OF_CHANNELS if "batch_norm" in op.name else _OF_SAMPLES


def _norm(op: Op, target: Target) -> Work:
    if op.name == "folded_batch_norm":
        return Work()
    cost = _norm_cost(op)
    return Work(norm=_pass(op.output, target, cost.forward + cost.affine * min(len(op.parameters), 2))) + steps(cost.steps_forward)


def _norm_backward(op: Op, target: Target) -> Work:
    cost = _norm_cost(op)
    return Work(norm=_pass(op.output, target, cost.backward + cost.affine * min(op.parameter_gradients, 2))) + steps(cost.steps_backward)


def _largest_input(op: Op) -> Tensor:
    return max((*op.inputs, *op.parameters), key=lambda tensor: tensor.elements, default=op.output)


def _reduce(op: Op, target: Target) -> Work:
    return Work(reduction=_pass(_largest_input(op), target, _REDUCTION_CYCLES)) + steps(2)


def _reduce_backward(op: Op, target: Target) -> Work:
    return Work(elementwise=_pass(_largest_input(op), target, 3)) + steps(1)


def _cast(op: Op, target: Target) -> Work:
    return Work(elementwise=assumed.ASSUMED_DATA_FACTOR * op.output.elements / target.tiles / 2) + steps(1)


def _copy(op: Op, target: Target) -> Work:
    return Work(elementwise=_pass(op.output, target, 2)) + steps(1)


def _nothing(op: Op, target: Target) -> Work:
    return Work()


_Formula = Callable[[Op, Target], Work]
_FORMULAS: Dict[str, Tuple[_Formula, _Formula]] = {
    "elementwise": (_elementwise, _elementwise_backward),
    "norm": (_norm, _norm_backward),
    "reduce": (_reduce, _reduce_backward),
    "pool": (_reduce, _reduce_backward),
    "cast": (_cast, _cast),
    "copy": (_copy, _nothing),
    "random": (_copy, _nothing),
}


def forward_work(op: Op, target: Target) -> Work:
    """Cycles of an operation."""
    if op.kind in ("conv", "matmul"):
        return product_work(forward_product(op), target)
    return _FORMULAS[op.kind][0](op, target)


def weight_gradient_work(op: Op, target: Target) -> Work:
    """The part of an operation's backward pass that is a product for its weights."""
    if op.kind not in ("conv", "matmul"):
        return Work()
    return sum((product_work(product, target) for product in gradient_products(op) if product.role == WEIGHT_GRADIENT), Work())


def backward_work(op: Op, target: Target) -> Work:
    """Cycles of an operation's backward pass, derived from its forward record: none where no gradient flows."""
    if op.kind in ("conv", "matmul"):
        return sum((product_work(product, target) for product in gradient_products(op)), Work())
    if not (op.input_gradients or op.parameter_gradients):
        return Work()
    return _FORMULAS[op.kind][1](op, target)
