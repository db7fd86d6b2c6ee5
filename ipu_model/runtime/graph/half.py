"""Half precision on the host: float32 arithmetic between the points where the device stores half.

A CPU's half kernels are about ten times slower than its float32. A captured graph is therefore rewritten: it takes and returns
half tensors, and casts inside it round to half, but everything between is computed in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Collection

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..rounding import round_to_half, stochastic_round_to_half_in_float32


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
