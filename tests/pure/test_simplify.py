"""What is left of a program without casts around norms and unfilled tensors: every operand still has a writer."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st
from written_programs import operation, program_of

from ipu_model.program.ops import Program
from ipu_model.program.placement import Stages
from ipu_model.program.simplify import simplified


def unwritten(program: Program):
    """Operands that neither an earlier operation has written nor a source is."""
    known = set(program.sources)
    missing = []
    for op in program.ops:
        missing += [number for number in op.reads if number not in known]
        known.add(op.writes)
    return missing


def norm_in_half(*after):
    """A half tensor, widened, normalised, narrowed; then what reads the result, which is tensor 3."""
    return program_of(
        operation("cast", 0, 1, "float16", "float32"),
        operation("norm", 1, 2, "float32", "float32"),
        operation("cast", 2, 3, "float32", "float16"),
        *after,
    )


def test_a_norm_between_casts_takes_and_gives_half():
    program = norm_in_half(operation("elementwise", 3, 4))
    norm, reader = simplified(program).ops
    assert (norm.kind, norm.reads, norm.inputs[0].dtype, norm.output.dtype) == ("norm", (0,), "float16", "float16")
    assert reader.reads == (norm.writes,)


def test_what_is_read_in_float_stays_in_float():
    also_read = norm_in_half(operation("elementwise", 2, 4, "float32", "float32"))
    assert simplified(also_read) == also_read
    statistics = norm_in_half(operation("reduce", 1, 4, "float32", "float32"), operation("elementwise", 3, 5))
    cast, norm, reduction, reader = simplified(statistics).ops
    assert (cast.writes, reduction.reads, norm.reads, reader.reads) == (1, (1,), (0,), (2,))


def test_a_tensor_written_over_in_place_is_another_tensor():
    program = program_of(
        operation("cast", 0, 1, "float16", "float32"),
        operation("elementwise", 0, 0),  # the half tensor is no longer what the norm would read
        operation("norm", 1, 2, "float32", "float32"),
        operation("cast", 2, 3, "float32", "float16"),
    )
    assert simplified(program) == program
    activation = norm_in_half(operation("elementwise", 3, 3), operation("elementwise", 3, 4))
    assert [(op.reads, op.writes) for op in simplified(activation).ops] == [((0,), 2), ((2,), 2), ((2,), 4)]


def test_unfilled_tensors_are_no_work():
    mask = [
        dataclasses.replace(operation("copy", 0, 1), name="new_empty"),
        dataclasses.replace(operation("random", 1, 1), name="bernoulli"),
        operation("elementwise", 1, 2),
    ]
    random, product = simplified(program_of(*mask)).ops
    assert (random.reads, random.writes, product.reads) == ((), 1, (1,))


@st.composite
def programs(draw):
    """Operations on tensors that exist, among them casts, norms, in-place writes and unfilled tensors."""
    dtype = {0: draw(st.sampled_from(["float16", "float32"]))}
    ops = []
    for _ in range(draw(st.integers(1, 14))):
        number = draw(st.sampled_from(sorted(dtype)))
        kind = draw(st.sampled_from(["cast", "cast", "norm", "norm", "elementwise", "conv", "empty"]))
        other = {"float16": "float32", "float32": "float16"}[dtype[number]] if kind == "cast" else dtype[number]
        is_in_place = kind == "elementwise" and draw(st.booleans())
        writes = number if is_in_place else len(dtype)
        name = "empty_like" if kind == "empty" else kind
        op = operation("copy" if kind == "empty" else kind, number, writes, dtype[number], other)
        ops.append(dataclasses.replace(op, name=name))
        dtype[writes] = other
    return program_of(*ops)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(programs())
def test_every_operand_is_written_or_is_a_source(program):
    assert not unwritten(program)
    after = simplified(program)
    assert not unwritten(after)
    assert all(tensor.dtype == "float16" for op in after.ops if op.kind == "norm" and op.output.dtype == "float16" for tensor in op.inputs)
    assert [op.kind for op in after.ops if op.kind in ("norm", "conv")] == [op.kind for op in program.ops if op.kind in ("norm", "conv")]
    assert simplified(after).macs == program.macs


@pytest.mark.slow
@given(programs(), st.integers(0, 14))
def test_stages_are_left_alone(program, cut):
    ops = tuple(dataclasses.replace(op, block=int(position >= cut)) for position, op in enumerate(program.ops))
    split = dataclasses.replace(program, ops=ops, stages=Stages((0, 1), (1, 0)))
    assert simplified(split).stages == split.stages
    before = {op.writes: op.block for op in split.ops if op.kind in ("norm", "conv")}
    after = {op.writes: op.block for op in simplified(split).ops if op.kind in ("norm", "conv")}
    assert before == after
