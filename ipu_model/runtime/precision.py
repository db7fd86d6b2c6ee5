"""Half precision on the host: float32 arithmetic between the points where the device stores half, and stochastic rounding.

A CPU's half kernels are about ten times slower than its float32. A captured graph is therefore rewritten: it takes and returns
half tensors, and casts inside it round to half, but everything between is computed in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

_MANTISSA_BITS = 10  # IEEE 754 binary16
_MIN_EXPONENT = -14  # of the smallest normal number


def round_to_half(value: torch.Tensor) -> torch.Tensor:
    """The values rounded to the nearest half, as float32."""
    return value.to(torch.float16).to(torch.float32)


def emulate_half_in_float32(graph_module: fx.GraphModule) -> None:
    """Rewrite a captured graph, in place: half at its borders and at explicit casts, float32 arithmetic between them."""
    graph = graph_module.graph
    if not any(_is_half(node) for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if node.op in ("placeholder", "get_attr") and _is_half(node):
            _insert_after(graph, node, torch.float32)
        elif node.op == "call_function" and node.target is torch.ops.aten._to_copy.default:
            _rewrite_cast(node)
        elif node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(_float_for_half, (node.args, node.kwargs))
        elif node.op == "output":
            node.args = pytree.tree_map(partial(_as_half_output, graph, node), node.args)
    graph.lint()
    graph_module.recompile()


def _is_half(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float16


def _float_for_half(value: Any) -> Any:
    return torch.float32 if value is torch.float16 else value


def _insert_after(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> None:
    with graph.inserting_after(node):
        cast = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _rewrite_cast(node: fx.Node) -> None:
    if node.kwargs.get("dtype") is torch.float16:
        node.target = round_to_half
        node.kwargs = {}


def _as_half_output(graph: fx.Graph, output: fx.Node, value: Any) -> Any:
    if not _is_half(value):
        return value
    with graph.inserting_before(output):
        return graph.call_function(torch.ops.aten._to_copy.default, (value,), {"dtype": torch.float16})


def store(value: torch.Tensor, dtype: torch.dtype, is_stochastic: bool = False) -> torch.Tensor:
    """A float32 result in the type in which the device stores it; half rounds to nearest, or stochastically."""
    if dtype == torch.float16 and is_stochastic:
        return stochastic_round_to_half(value)
    return value.to(dtype)


def stochastic_round_to_half(value: torch.Tensor) -> torch.Tensor:
    """Round float32 to one of the two nearest half numbers, up with probability equal to the distance from the lower one.

    The spacing of half numbers at x is 2^(max(floor(log2 |x|), -14) - 10). Values that are half numbers stay as they are.
    """
    _, exponent = torch.frexp(value)  # |x| = m * 2^exponent with m in [0.5, 1)
    spacing_exponent = (exponent - 1).clamp_(min=_MIN_EXPONENT) - _MANTISSA_BITS
    steps = torch.ldexp(value, -spacing_exponent)
    rounded = torch.floor(steps + torch.rand_like(value))
    return torch.where(torch.isfinite(value), torch.ldexp(rounded, spacing_exponent), value).to(torch.float16)
