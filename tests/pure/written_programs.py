"""Programs written by hand, for the cost model."""

from __future__ import annotations

from ipu_model.program.ops import Op, Program, Tensor, Variable


def operation(kind, reads, writes, from_dtype="float16", to_dtype="float16", shape=(4, 16, 8, 8)):
    """One operation of one input; convolutions have 1 x 1 kernels."""
    weights = (Tensor((shape[1], shape[1], 1, 1), from_dtype),) if kind == "conv" else ()
    inputs, output = (Tensor(shape, from_dtype),), Tensor(shape, to_dtype)
    return Op(kind, kind, "net", 0, inputs, weights, output, kernel=(1, 1), stride=(1, 1), reads=(reads,), writes=writes)


def program_of(*ops, is_training=True):
    """A program of these operations, whose source is tensor 0."""
    return Program(tuple(ops), (), ops[0].inputs, (ops[-1].output,), is_training, sources=(0,))


def convolution(channels_in=16, channels_out=16, batch=8, groups=1, kernel=3, number=0):
    """In half, on images of 32 x 32."""
    return Op(
        kind="conv",
        name="convolution",
        path=f"net.{number}",
        block=0,
        inputs=(Tensor((batch, channels_in, 32, 32), "float16"),),
        parameters=(Tensor((channels_out, channels_in // groups, kernel, kernel), "float16"),),
        output=Tensor((batch, channels_out, 32, 32), "float16"),
        groups=groups,
        kernel=(kernel, kernel),
        stride=(1, 1),
        input_gradients=1,
        parameter_gradients=1,
        reads=(number,),
        writes=number + 1,
    )


def chain(length=8, batch=8, is_training=True, widths=None):
    """Convolutions in a row, each a module of its own; their input is tensor 0."""
    ops, variables = [], []
    for index in range(length):
        width = widths[index] if widths else 16
        op = convolution(16, 16, batch=batch, kernel=width, number=index)
        ops.append(op)
        variables.append(Variable(f"net.{index}.weight", op.parameters[0], 0, is_training))
    return Program(tuple(ops), tuple(variables), ops[0].inputs, (ops[-1].output,), is_training, sources=(0,))
