"""Splits a captured graph in two: what depends on constant state alone, computed once for each weight update, and the rest.

Casts of float32 weights to half, or statistics of a proxy distribution, are then not computed again for every micro batch. Values are the
same to the last bit: the same operations run on the same inputs.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, Sequence, Set

import torch
from torch import fx
from torch.fx.node import map_arg


class SplitGraph:
    """`prepare(state)` gives what `run` needs besides the arguments of the whole graph.

    The state, parameters and then buffers, is the first `num_state` of the graph's flat arguments.
    """

    def __init__(self, graph_module: fx.GraphModule, num_state: int) -> None:
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        hoisted = _hoistable(graph_module.graph, placeholders[:num_state])
        crossing = [node for node in hoisted if any(user not in hoisted for user in node.users)]
        self._prologue = _extract(graph_module, placeholders[:num_state], hoisted, crossing)
        rest = [node for node in graph_module.graph.nodes if node not in hoisted]
        self._body = _extract(graph_module, placeholders + crossing, rest, None)

    def prepare(self, state: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What follows from the state as it is now."""
        return self._prologue(*state)

    def run(self, arguments: Sequence[Any], prepared: Sequence[torch.Tensor]) -> Any:
        """The rest, on all flat arguments of the whole graph."""
        return self._body(*arguments, *prepared)


def _hoistable(graph: fx.Graph, state: Sequence[fx.Node]) -> Dict[fx.Node, None]:
    """Nodes that depend on constant state alone, are deterministic, and share no memory with anything that is written in place."""
    written = _written_in_place(graph)
    known: Set[fx.Node] = {node for node in state if node not in written}
    hoisted = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            known.add(node)
        is_operation = node.op == "call_function" and bool(node.all_input_nodes)
        if is_operation and node not in written and all(source in known for source in node.all_input_nodes) and _is_pure(node):
            known.add(node)
            hoisted[node] = None
    return hoisted


def _is_pure(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return True  # operator.getitem, and our own rounding functions
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags and "dropout" not in target.name()


def _written_in_place(graph: fx.Graph) -> Set[fx.Node]:
    """Nodes whose memory some operation writes, and those that they are views of."""
    written: Set[fx.Node] = set()
    for node in graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if "batch_norm" in node.target.name():  # writes its running statistics whatever its schema says
            for value in node.args:
                written |= aliases(value) if isinstance(value, fx.Node) else set()
        elif node.target._schema.is_mutable:
            for argument, value in zip(node.target._schema.arguments, node.args):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, fx.Node):
                    written |= aliases(value)
    return written


def aliases(node: fx.Node) -> Set[fx.Node]:
    """The node and those that it is a view of."""
    chain = {node}
    while node.op == "call_function" and node.all_input_nodes and _shares_memory(node):
        node = node.all_input_nodes[0]
        chain.add(node)
    return chain


def _shares_memory(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    returns = node.target._schema.returns if isinstance(node.target, torch._ops.OpOverload) else []
    return any(value.alias_info is not None for value in returns)


def _extract(owner: fx.GraphModule, inputs: Sequence[fx.Node], nodes: Any, outputs: Any) -> Callable[..., Any]:
    """A graph module of some of the nodes, with flat inputs; its outputs are `outputs`, or those of the whole graph."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"input_{index}") for index, node in enumerate(inputs)}
    members = set(nodes)
    for node in owner.graph.nodes:
        is_wanted = node.op == "get_attr" or (node.op == "call_function" and node in members)
        if is_wanted and node not in copies:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    if outputs is None:
        (result,) = [node for node in owner.graph.nodes if node.op == "output"]
        graph.output(map_arg(result.args[0], lambda source: copies[source]))
    else:
        graph.output([copies[node] for node in outputs])
    return fx.GraphModule(owner, graph)
