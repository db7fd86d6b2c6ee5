"""Matrix products as the planner sees them: what convolutions, matrix products and their gradients have in common.

A product sums over `reductions` x `inputs` for each of `rows` x `outputs`, in `groups` that share nothing. In a convolution the rows are
output positions and the reductions are kernel positions. In its weight gradient the roles change: rows are the kernel's positions for each
input channel, and what is summed over is the field (reductions) and the micro batch (inputs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import List, Tuple

from ipu_model.program.ops import Op, Tensor

FORWARD, DATA_GRADIENT, WEIGHT_GRADIENT = "forward", "data gradient", "weight gradient"


@dataclass(frozen=True)
class Product:
    """One product.

    Attributes:
        role: "forward", "data gradient" or "weight gradient".
        groups, rows, reductions, inputs, outputs: its sizes; multiply-accumulates are the product of all.
        row_length: rows that lie side by side, so that a worker goes through them without a break.
        filling: reductions that can take the place of missing inputs (kernel rows).
        reuse: how many reductions use the same element of the moving operand.
        is_half: type of the operands.
        moved: tensors whose channels are grouped anew first.
        transposed: tensors whose channels change places with positions or samples first, element by element.
        kernel_width: columns of a convolution's kernel where a group has one channel; 0 for others.
        is_dilated: the moving operand has gaps, as the gradients of a strided convolution have.
    """

    role: str
    groups: int
    rows: int
    reductions: int
    inputs: int
    outputs: int
    row_length: int
    filling: int = 1
    reuse: float = 1.0
    is_half: bool = True
    moved: Tuple[Tensor, ...] = ()
    transposed: Tuple[Tensor, ...] = ()
    kernel_width: int = 0
    is_dilated: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""
        return self.groups * self.rows * self.reductions * self.inputs * self.outputs

    def swapped(self) -> Product:
        """The same with rows and outputs in each other's place: the transposed product."""
        return replace(self, rows=self.outputs, outputs=self.rows, row_length=self.outputs, reuse=1.0)


def forward_product(op: Op) -> Product:
    """What a convolution or matrix product computes."""
    return _convolution(op) if op.kind == "conv" else _matmul(op)


def gradient_products(op: Op) -> List[Product]:
    """The products of the gradients that flow."""
    if op.kind == "conv":
        data, weights = _convolution_data_gradient, _convolution_weight_gradient
        return [data(op)] * min(op.input_gradients, 1) + [weights(op)] * min(op.parameter_gradients, 1)
    left, right = _matmul_gradients(op)
    if op.inputs and op.parameters and len(op.parameters[-1].shape) > 1:
        return [left] * min(op.input_gradients, 1) + [right] * min(op.parameter_gradients, 1)
    return [left, right][: op.input_gradients + op.parameter_gradients]


def _convolution(op: Op) -> Product:
    image, result, weights = op.inputs[0], op.output, op.parameters[0]
    kernel, rows = math.prod(op.kernel), result.shape[0] * math.prod(result.shape[2:])
    return Product(
        role=FORWARD,
        groups=op.groups,
        rows=rows,
        reductions=kernel,
        inputs=weights.shape[1],
        outputs=weights.shape[0] // op.groups,
        row_length=result.shape[-1] if kernel > 1 else rows,
        filling=op.kernel[0] if op.groups == 1 else 1,
        reuse=max(kernel / math.prod(op.stride), 1.0),
        is_half=result.dtype == "float16",
        moved=(image,),
        kernel_width=op.kernel[-1] if _is_depthwise(op) else 0,
    )


def _convolution_data_gradient(op: Op) -> Product:
    """A convolution of the results' gradients with the transposed kernel; in a strided one each position gets a part of the kernel."""
    image, result, weights = op.inputs[0], op.output, op.parameters[0]
    kernel, stride = math.prod(op.kernel), math.prod(op.stride)
    batch, field, field_in = image.shape[0], math.prod(result.shape[2:]), math.prod(image.shape[2:])
    rows = batch * (field_in if kernel >= stride else field * kernel)
    return Product(
        role=DATA_GRADIENT,
        groups=op.groups,
        rows=rows,
        reductions=max(round(batch * field * kernel / rows), 1),
        inputs=weights.shape[0] // op.groups,
        outputs=weights.shape[1],
        row_length=image.shape[-1] if kernel > 1 else rows,
        filling=op.kernel[0] if op.groups == 1 and stride == 1 else 1,
        reuse=float(kernel),
        is_half=result.dtype == "float16",
        moved=(result,),
        kernel_width=op.kernel[-1] if _is_depthwise(op) else 0,
        is_dilated=stride > 1,
    )


def _convolution_weight_gradient(op: Op) -> Product:
    image, result, weights = op.inputs[0], op.output, op.parameters[0]
    kernel = math.prod(op.kernel)
    return Product(
        role=WEIGHT_GRADIENT,
        groups=op.groups,
        rows=weights.shape[1] * kernel,
        reductions=math.prod(result.shape[2:]),
        inputs=image.shape[0],
        outputs=weights.shape[0] // op.groups,
        row_length=weights.shape[1] * op.kernel[-1],
        filling=result.shape[2],
        reuse=max(kernel / math.prod(op.stride), 1.0),
        is_half=result.dtype == "float16",
        moved=(image, result) if _is_depthwise(op) else (),  # channels stay side by side
        transposed=() if _is_depthwise(op) else (image, result),
    )


def _is_depthwise(op: Op) -> bool:
    return op.groups > 1 and op.parameters[0].shape[1] == 1


def _matmul(op: Op) -> Product:
    batch, rows, inner, columns = op.matmul_sizes
    return Product(FORWARD, batch, rows, 1, inner, columns, rows, is_half=op.output.dtype == "float16", moved=op.inputs[-1:])


def _matmul_gradients(op: Op) -> Tuple[Product, Product]:
    """Of the left operand: the result's gradient x the right one transposed; of the right: the left one transposed x the gradient."""
    batch, rows, inner, columns = op.matmul_sizes
    is_half, result = op.output.dtype == "float16", op.output
    left = Product(DATA_GRADIENT, batch, rows, 1, columns, inner, rows, is_half=is_half, moved=(result,))
    right = Product(WEIGHT_GRADIENT, batch, inner, 1, rows, columns, inner, is_half=is_half, transposed=(*op.inputs[-1:], result))
    return left, right
