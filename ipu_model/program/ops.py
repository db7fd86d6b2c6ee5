"""What a program computes: one record for each operation of a micro batch's forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple, Union

from .placement import Stages

BYTES = {"float16": 2, "float32": 4, "int32": 4, "int64": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "float64": 4, "bfloat16": 4}


@dataclass(frozen=True)
class Tensor:
    """Shape and type of a tensor on the device, where 64-bit types take 32 bits."""

    shape: Tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.elements * BYTES[self.dtype]


@dataclass(frozen=True)
class Op:
    """An operation of the forward pass.

    Attributes:
        kind: "conv", "matmul", "norm", "elementwise", "reduce", "cast", "copy", "random" or "pool".
        name: torch's name of the operation, such as "silu".
        path: dotted path of the module that runs it.
        block: number of the block (in order of execution) in which it runs.
        inputs: tensors that follow from the data; parameters are apart.
        parameters: tensors that follow from parameters alone.
        output: its (first) result.
        groups, kernel, stride: of a convolution; `groups` also of a norm.
        is_once_per_update: depends on parameters alone, so that the device computes it once for each weight update.
        input_gradients: how many of the inputs get a gradient.
        parameter_gradients: how many of the parameters get a gradient.
        reads: numbers of the tensors that `inputs` are or are views of.
        writes: number of the tensor that holds the output; one of `reads` where it is written in place.
    """

    kind: str
    name: str
    path: str
    block: int
    inputs: Tuple[Tensor, ...]
    parameters: Tuple[Tensor, ...]
    output: Tensor
    groups: int = 1
    kernel: Tuple[int, ...] = ()
    stride: Tuple[int, ...] = ()
    is_once_per_update: bool = False
    input_gradients: int = 0
    parameter_gradients: int = 0
    reads: Tuple[int, ...] = ()
    writes: int = -1

    @property
    def has_backward(self) -> bool:
        """Whether a gradient flows through it for each micro batch."""
        return bool(self.input_gradients or self.parameter_gradients) and not self.is_once_per_update

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations: of a convolution, output elements x input channels of a group x kernel size."""
        if self.kind == "conv":
            return self.output.elements * self.parameters[0].elements // self.parameters[0].shape[0]
        if self.kind == "matmul":
            return math.prod(self.matmul_sizes)
        return 0

    @property
    def matrices(self) -> Tuple[Tensor, Tensor]:
        """The operands of a matrix product: the last two, one of each kind where one of them follows from parameters alone."""
        if self.inputs and self.parameters and len(self.parameters[-1].shape) > 1:
            return self.inputs[-1], self.parameters[-1]
        left, right = (self.inputs if len(self.inputs) > 1 else self.parameters)[-2:]
        return left, right

    @property
    def matmul_sizes(self) -> Tuple[int, int, int, int]:
        """Of a matrix product: products side by side, rows, what is summed over, columns."""
        left, right = self.matrices
        batch = self.output.shape[0] if len(self.output.shape) > 2 else 1
        inner = max(math.isqrt(left.elements * right.elements // (max(self.output.elements, 1) * batch)), 1)
        return batch, left.elements // (batch * inner), inner, right.elements // (batch * inner)

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate, one for each element otherwise."""
        return 2 * self.macs or self.output.elements


@dataclass(frozen=True)
class Variable:
    """A parameter or buffer: its block is that of its first use."""

    name: str
    tensor: Tensor
    block: int
    is_trained: bool


@dataclass(frozen=True)
class Program:
    """A micro batch's forward pass.

    Attributes:
        inputs, outputs: tensors that travel between host and device for each micro batch.
        stages: the pipeline stage of each block, and the IPU of each stage.
        sources: numbers of the tensors that operations read and none writes: inputs, and constants made before.
    """

    ops: Tuple[Op, ...]
    variables: Tuple[Variable, ...]
    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    is_training: bool
    stages: Stages = Stages()
    sources: Tuple[int, ...] = ()

    @property
    def micro_batch_size(self) -> int:
        """Samples of a micro batch: the first dimension of the first input."""
        return max(self.inputs[0].shape[0], 1) if self.inputs and self.inputs[0].shape else 1

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of a micro batch's forward pass."""
        return sum(op.macs for op in self.ops)

    def stage_of(self, item: Union[Op, Variable]) -> int:
        """Pipeline stage in which an operation or a variable's first reader runs."""
        return self.stages.of_block[item.block]

    def ops_of_stage(self, stage: int) -> Tuple[Op, ...]:
        """Operations that a stage runs."""
        return tuple(op for op in self.ops if self.stage_of(op) == stage)
