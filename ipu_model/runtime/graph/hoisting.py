"""Splits a captured graph in two: what depends on constant state alone, computed once for each weight update, and the rest.

Casts of float32 weights to half, or statistics of a proxy distribution, are then not computed again for every micro batch. Values are the
same to the last bit: the same operations run on the same inputs.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple

import torch
from torch import fx
from torch.fx.node import map_arg

from ..rounding import stochastic_round_to_half_in_float32
from .files import dump_graph, load_graph
from .finite import CheckedGraph


class SplitGraph:
    """`prepare(state)` gives what `run` needs besides the arguments of the whole graph.

    The state, parameters and then buffers, is the first `num_state` of the graph's flat arguments.
    """

    _is_checked = False

    def __init__(self, graph_module: fx.GraphModule, num_state: int) -> None:
        self.has_random_numbers = any(_draws_random_numbers(node) for node in _all_nodes(graph_module))
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        hoisted = _hoistable(graph_module.graph, placeholders[:num_state])
        crossing = [node for node in hoisted if any(user not in hoisted for user in node.users)]
        prologue = _extract(graph_module, placeholders[:num_state], hoisted, crossing)
        rest = [node for node in graph_module.graph.nodes if node not in hoisted]
        self._set(prologue, _extract(graph_module, placeholders + crossing, rest, None))

    def _set(self, prologue: fx.GraphModule, body: fx.GraphModule) -> None:
        self.prologue, self.body = prologue, body
        self._run_prologue: Callable[..., Any] = prologue.forward  # without the hooks of Module.__call__
        self._run_body: Callable[..., Any] = body.forward

    def check_floating_point(self) -> None:
        """From now on raise at the operation that makes a value that is not finite."""
        self._is_checked = True
        self._run_prologue = CheckedGraph(self.prologue)
        self._run_body = CheckedGraph(self.body)

    def observe(self, body: fx.GraphModule) -> None:
        """Run a copy of the body to which observers were added."""
        self._run_body = CheckedGraph(body) if self._is_checked else body.forward

    def prepare(self, state: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What follows from the state as it is now."""
        return self._run_prologue(*state)

    def run(self, arguments: Sequence[Any], prepared: Sequence[torch.Tensor]) -> Any:
        """The rest, on all flat arguments of the whole graph."""
        return self._run_body(*arguments, *prepared)

    def __getstate__(self) -> Dict[str, Any]:
        return {"has_random_numbers": self.has_random_numbers, "prologue": dump_graph(self.prologue), "body": dump_graph(self.body)}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.has_random_numbers = state["has_random_numbers"]
        self._set(load_graph(state["prologue"]), load_graph(state["body"]))


def _hoistable(graph: fx.Graph, state: Sequence[fx.Node]) -> Dict[fx.Node, None]:
    """Nodes that depend on constant state alone, are deterministic, and share no memory with anything that is written in place."""
    written = written_in_place(graph)
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
        return target is not stochastic_round_to_half_in_float32  # operator.getitem, and rounding to nearest
    has_effect = target.name().startswith("ipu_model::")  # printing, calls to the host
    return not has_effect and not target._schema.is_mutable and not _draws_random_numbers(node)


def _draws_random_numbers(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target is stochastic_round_to_half_in_float32
    return torch.Tag.nondeterministic_seeded in target.tags or "dropout" in target.name()


def _all_nodes(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    """Nodes of a graph and of the bodies of its loops and branches."""
    for part in graph_module.modules():
        if isinstance(part, fx.GraphModule):
            yield from part.graph.nodes


def written_in_place(graph: fx.Graph) -> Set[fx.Node]:
    """Nodes whose memory some operation writes, and those that they are views of. What a loop or branch reads may be written there."""
    written: Set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            targets = node.all_input_nodes
        elif isinstance(node.target, torch._ops.OpOverload):
            targets = [value for argument, value in _arguments(node) if _is_written(node, argument) and isinstance(value, fx.Node)]
        else:
            targets = []
        for value in targets:
            written |= aliases(value)
    return written


def _arguments(node: fx.Node) -> List[Tuple[Any, Any]]:
    """(schema argument, value) of an operation."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    named = [(argument, node.kwargs[argument.name]) for argument in schema if argument.name in node.kwargs]
    return [*zip(schema, node.args), *named]


def _is_written(node: fx.Node, argument: Any) -> bool:
    if argument.name in ("running_mean", "running_var"):  # written whatever the schema says
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


def _extract(owner: fx.GraphModule, inputs: Sequence[fx.Node], nodes: Any, outputs: Any) -> fx.GraphModule:
    """A graph module of some of the nodes, with flat inputs; its outputs are `outputs`, or those of the whole graph."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"input_{index}") for index, node in enumerate(inputs)}
    members = set(nodes)
    for node in owner.graph.nodes:
        is_wanted = node.op == "get_attr" or (node.op in ("call_function", "call_module") and node in members)
        if is_wanted and node not in copies:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    if outputs is None:
        (result,) = [node for node in owner.graph.nodes if node.op == "output"]
        graph.output(map_arg(result.args[0], lambda source: copies[source]))
    else:
        graph.output([copies[node] for node in outputs])
    return fx.GraphModule(owner, graph)
