"""What a compiler takes out of a traced program before it costs anything."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Sequence, Tuple

from .ops import Op, Tensor


def simplified(ops: Sequence[Op]) -> Tuple[Op, ...]:
    """Without casts around norms, which keep float32 statistics of half tensors by themselves, and without unfilled tensors."""
    kept: List[Op] = []
    norm_path: Optional[str] = None  # of a norm in half whose result is cast back next
    for op in ops:
        if op.name in ("empty", "empty_like"):
            continue
        widening = _widening_cast(kept, op)
        if widening is not None:
            del kept[widening]
            norm_path = op.path
            kept.append(replace(op, inputs=tuple(_half(tensor) for tensor in op.inputs), output=_half(op.output)))
        elif op.kind == "cast" and op.path == norm_path and op.output.dtype == "float16":
            norm_path = None
        else:
            kept.append(op)
    return tuple(kept)


def _widening_cast(before: Sequence[Op], norm: Op) -> Optional[int]:
    """Place of the cast from half to float32, in the same module, whose result a norm takes; among the last four operations."""
    if norm.kind != "norm":
        return None
    for place in range(max(len(before) - 4, 0), len(before)):
        op = before[place]
        if op.kind == "cast" and op.path == norm.path and op.output == norm.output and op.inputs and op.inputs[0].dtype == "float16":
            return place
    return None


def _half(tensor: Tensor) -> Tensor:
    return Tensor(tensor.shape, "float16")
