"""Half precision on the host: float32 arithmetic between the points where the device stores half, and stochastic rounding.

A CPU's half kernels are about ten times slower than its float32. A captured graph is therefore rewritten: it takes and returns
half tensors, and casts inside it round to half, but everything between is computed in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Collection

import torch
from torch import fx
from torch.utils import _pytree as pytree

_DROPPED_BITS = 13  # mantissa bits that float32 has and half (IEEE 754 binary16) has not
_SMALLEST_NORMAL = 2.0**-14  # of half


def round_to_half(value: torch.Tensor) -> torch.Tensor:
    """The values rounded to the nearest half, as float32."""
    return value.to(torch.float16).to(torch.float32)


def stochastic_round_to_half_in_float32(value: torch.Tensor) -> torch.Tensor:
    """The values rounded stochastically to half, as float32."""
    return stochastic_round_to_half(value.to(torch.float32)).to(torch.float32)


def emulate_half_in_float32(graph_module: fx.GraphModule, written: Collection[fx.Node], is_stochastic: bool = False) -> None:
    """Rewrite a captured graph, in place: half at its borders and at explicit casts, float32 arithmetic between them.

    `written` are the nodes whose memory the graph writes: half arguments among them are rounded and written back at the end.
    `is_stochastic` rounds stochastically at those casts and in the results.
    """
    graph = graph_module.graph
    if not any(_is_half(node) for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if node.op in ("placeholder", "get_attr") and _is_half(node):
            wide = _insert_after(graph, node, torch.float32)
            if node in written:
                _write_back(graph, node, wide, is_stochastic)
        elif node.op == "call_function" and node.target is torch.ops.aten._to_copy.default:
            _rewrite_cast(node, stochastic_round_to_half_in_float32 if is_stochastic else round_to_half)
        elif node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(_float_for_half, (node.args, node.kwargs))
        elif node.op == "output":
            node.args = pytree.tree_map(partial(_as_half_output, graph, node, is_stochastic), node.args)
    graph.lint()


def _is_half(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float16


def _float_for_half(value: Any) -> Any:
    return torch.float32 if value is torch.float16 else value


def _write_back(graph: fx.Graph, argument: fx.Node, wide: fx.Node, is_stochastic: bool) -> None:
    (output,) = [node for node in graph.nodes if node.op == "output"]
    with graph.inserting_before(output):
        value = graph.call_function(stochastic_round_to_half_in_float32, (wide,)) if is_stochastic else wide
        graph.call_function(torch.ops.aten.copy_.default, (argument, value))


def _insert_after(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    with graph.inserting_after(node):
        cast = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
    return cast


def _rewrite_cast(node: fx.Node, rounding: Callable[[torch.Tensor], torch.Tensor]) -> None:
    if node.kwargs.get("dtype") is torch.float16:
        node.target = rounding
        node.kwargs = {}


def _as_half_output(graph: fx.Graph, output: fx.Node, is_stochastic: bool, value: Any) -> Any:
    if not _is_half(value):
        return value
    with graph.inserting_before(output):
        if is_stochastic:
            value = graph.call_function(stochastic_round_to_half_in_float32, (value,))
        return graph.call_function(torch.ops.aten._to_copy.default, (value,), {"dtype": torch.float16})


def store(value: torch.Tensor, dtype: torch.dtype, is_stochastic: bool = False) -> torch.Tensor:
    """A float32 result in the type in which the device stores it; half rounds to nearest, or stochastically."""
    if dtype == torch.float16 and is_stochastic:
        return stochastic_round_to_half(value)
    return value.to(dtype)


def stochastic_round_to_half(value: torch.Tensor) -> torch.Tensor:
    """Round float32 to one of the two nearest half numbers, up with probability equal to the distance from the lower one.

    Half keeps 10 of float32's 23 mantissa bits: a random number is added to the other 13, which are then cut off. Below 2^-14 half
    numbers are 2^-24 apart. Values that are half numbers, infinite or NaN stay as they are.
    """
    random = torch.rand_like(value)
    bits = (value.view(torch.int32) + (random * 2**_DROPPED_BITS).to(torch.int32)).bitwise_and_(-(2**_DROPPED_BITS))
    normal = bits.view(torch.float32)
    subnormal = torch.floor(value * 2.0**24 + random) * 2.0**-24
    rounded = torch.where(value.abs() < _SMALLEST_NORMAL, subnormal, normal)
    return torch.where(torch.isfinite(value), rounded, value).to(torch.float16)
