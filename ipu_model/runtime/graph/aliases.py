"""Which operations of a graph write memory in place, and whose."""

from __future__ import annotations

import operator
from typing import Any, Dict, List, Set, Tuple

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..errors import Error
from ..forward.control_flow import open_regions

_STATISTICS = ("running_mean", "running_var")


def written_in_place(graph: fx.Graph) -> Set[fx.Node]:
    """Nodes whose memory some operation writes, and those that they are views of. What a loop or branch reads may be written there."""
    written: Set[fx.Node] = set()
    for node in graph.nodes:
        for value in _targets(node):
            written |= aliases(value)
    return written


def _targets(node: fx.Node) -> List[fx.Node]:
    """Arguments whose memory an operation writes."""
    if node.op == "call_module":
        return node.all_input_nodes
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    return [value for argument, value in _arguments(node) if _is_written(node, argument) and isinstance(value, fx.Node)]


def _arguments(node: fx.Node) -> List[Tuple[Any, Any]]:
    """(schema argument, value) of an operation."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    named = [(argument, node.kwargs[argument.name]) for argument in schema if argument.name in node.kwargs]
    return [*zip(schema, node.args), *named]


def _is_written(node: fx.Node, argument: Any) -> bool:
    if argument.name in _STATISTICS:  # written whatever the schema says
        is_training = any(other.name == "training" and value for other, value in _arguments(node))
        return is_training and "backward" not in node.target.name()  # type: ignore[union-attr]
    return argument.alias_info is not None and argument.alias_info.is_write


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


def written_arguments(graph_module: fx.GraphModule) -> Set[int]:
    """Numbers of the graph's arguments that it writes in place."""
    written = written_in_place(graph_module.graph)
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    return {index for index, node in enumerate(placeholders) if node in written}


def read_statistics_of_before(graph: fx.Graph) -> None:
    """What forward reads of a batch norm's running statistics behind the norm are the values from before it, as on the device.

    Outside of the loop or branch that the norm is in they are the values from before the loop or branch.
    """
    nodes = list(graph.nodes)
    order = {node: position for position, node in enumerate(nodes)}
    regions = open_regions(nodes)
    for norm in reversed(nodes):
        for statistic in _statistics_written(norm):
            befores: Dict[fx.Node, fx.Node] = {}  # by the node that they are in front of
            for reader in list(statistic.users):
                if order.get(reader, 0) <= order[norm] or statistic in _targets(reader):
                    continue
                place = next((begin for begin in regions[norm] if begin not in regions[reader]), norm)
                if place not in befores:
                    befores[place] = _value_before(place, statistic)
                reader.replace_input_with(statistic, befores[place])


def _value_before(place: fx.Node, value: fx.Node) -> fx.Node:
    with place.graph.inserting_before(place):
        before = place.graph.call_function(torch.ops.aten.clone.default, (value,))
    before.meta.update(value.meta)
    return before


def _statistics_written(node: fx.Node) -> List[fx.Node]:
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    named = [(argument, value) for argument, value in _arguments(node) if argument.name in _STATISTICS]
    return [value for argument, value in named if isinstance(value, fx.Node) and _is_written(node, argument)]


def check_constants(graph: fx.Graph) -> None:
    """`Error` for a graph that writes to a constant, a tensor of the CPU."""
    for node in written_in_place(graph):
        if node.op == "get_attr":
            raise Error(
                "Expected an IPU tensor but got a CPU tensor: forward writes a value of the device into a plain tensor (an attribute, a "
                "global or a closure). Register it as a buffer of its module with register_buffer."
            )


def copy_aliased_outputs(graph_module: fx.GraphModule) -> None:
    """Every result gets memory of its own, since gradients are reduced and weights updated in place.

    Copied are views of state or inputs, results that share memory with an earlier one, and expanded tensors.
    """
    graph = graph_module.graph
    (output,) = [node for node in graph.nodes if node.op == "output"]
    seen: Set[fx.Node] = set()

    def copied(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        chain = aliases(value)
        is_shared = bool(chain & seen) or any(
            source.op in ("placeholder", "get_attr") or "expand" in str(source.target) for source in chain
        )
        seen.update(chain)
        if not is_shared:
            return value
        with graph.inserting_before(output):
            copy = graph.call_function(torch.ops.aten.clone.default, (value,))
        copy.meta.update(value.meta)
        return copy

    output.args = pytree.tree_map(copied, output.args)
