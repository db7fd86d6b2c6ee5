"""Cycles of single operations, forward and backward: one formula for each kind.

Cycles are of one IPU on which an operation's elements lie evenly on all tiles. Inner loops are PopLibs' (popops and popnn estimators): with
six workers that share a tile, c worker cycles for a vector of 4 halves (2 floats) are c / 4 (c / 2) tile cycles for each element.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import Callable, Dict, Tuple

from ipu_model.program.ops import Op, Tensor

from . import assumptions as assumed
from .plan import plan
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


# Worker cycles for a vector: forward, backward (PL popopsCycleEstimators; half swish 5 / 9, float 11 / 15 for 2).
_VECTOR_CYCLES: Dict[str, Tuple[float, float]] = {
    "silu": (5, 9),
    "sigmoid": (4, 3),
    "relu": (2, 3),
    "tanh": (4, 3),
    "gelu": (11, 15),
    "exp": (4, 3),
    "mul": (3, 6),
    "add": (3, 0),
    "sub": (3, 3),
    "div": (21, 6),
    "addcmul": (6, 9),
    "sqrt": (23, 6),
    "rsqrt": (19, 6),
    "pow": (4, 6),
}
_BINARY = (3, 3)


_TWO_OPERATIONS = ("addcmul",)  # a product and a sum: PopLibs has no single pass for operands of three shapes


def _elementwise(op: Op, target: Target) -> Work:
    cycles, _ = _VECTOR_CYCLES.get(op.name, _BINARY)
    return Work(elementwise=_pass(op.output, target, cycles)) + steps(1 + (op.name in _TWO_OPERATIONS) + _num_broadcasts(op))


def _num_broadcasts(op: Op) -> int:
    """Operands of another shape than the result, such as a value for each channel: each is copied to all tiles that need it first."""
    return sum(1 < tensor.elements < op.output.elements for tensor in (*op.inputs, *op.parameters))


def _elementwise_backward(op: Op, target: Target) -> Work:
    """Gradients of the data, and for each parameter, which has a value for each channel, a reduction over all else."""
    _, cycles = _VECTOR_CYCLES.get(op.name, _BINARY)
    data = Work(elementwise=_pass(op.output, target, cycles)) + steps(1 + _num_broadcasts(op)) if cycles and op.input_gradients else Work()
    sums = (Work(reduction=_pass(op.output, target, 1)) + steps(2)) * (0 if op.is_once_per_update else op.parameter_gradients)
    return data + sums


def _moved(tensor: Tensor, target: Target) -> Work:
    """A tensor into another layout: copied at 2 bytes a cycle with a quarter of overhead, and exchanged (PL ConvModel)."""
    data = assumed.ASSUMED_DATA_FACTOR * tensor.bytes / target.tiles
    return Work(rearrangement=data * 1.25 / 2, exchange=data / target.ipu.exchange_bytes_per_cycle)


def _matrix(op: Op, target: Target) -> Work:
    moved = _moved(op.output, target)
    for tensor in op.inputs[:1]:
        moved = moved + _moved(tensor, target)
    chosen = plan(op, target)
    return Work(matrix=chosen.cycles) + moved + steps(chosen.steps)


# Passes over the data of a norm, forward and backward (PL Norms, PopNN): two reductions, centring, scaling and the affine map; then
# whitening again, reductions for scale and shift and for mean and deviation, and the gradient. Batch norm's scale and shift merge with the
# deviation and the mean, since all four are of a channel.
_GROUP_NORM_PASSES, _BATCH_NORM_PASSES = (5, 9), (4, 6)
_NORM_VECTOR_CYCLES = 2.8  # between a pipelined broadcast operation (2) and one out of place (3)


def _norm_passes(op: Op) -> Tuple[int, int]:
    return _BATCH_NORM_PASSES if "batch_norm" in op.name else _GROUP_NORM_PASSES


def _norm(op: Op, target: Target) -> Work:
    if op.name == "folded_batch_norm":
        return Work()
    return Work(norm=_norm_passes(op)[0] * _pass(op.output, target, _NORM_VECTOR_CYCLES)) + steps(assumed.ASSUMED_NORM_STEPS_FORWARD)


def _norm_backward(op: Op, target: Target) -> Work:
    return Work(norm=_norm_passes(op)[1] * _pass(op.output, target, _NORM_VECTOR_CYCLES)) + steps(assumed.ASSUMED_NORM_STEPS_BACKWARD)


def _largest_input(op: Op) -> Tensor:
    return max((*op.inputs, *op.parameters), key=lambda tensor: tensor.elements, default=op.output)


def _reduce(op: Op, target: Target) -> Work:
    return Work(reduction=_pass(_largest_input(op), target, 1)) + steps(2)


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
    return _matrix(op, target) if op.kind in ("conv", "matmul") else _FORMULAS[op.kind][0](op, target)


def backward_work(op: Op, target: Target) -> Work:
    """Cycles of an operation's backward pass, derived from its forward record: none where no gradient flows."""
    if op.kind in ("conv", "matmul"):
        return _matrix(op, target) * (min(op.input_gradients, 1) + min(op.parameter_gradients, 1))
    if not (op.input_gradients or op.parameter_gradients):
        return Work()
    return _FORMULAS[op.kind][1](op, target)
