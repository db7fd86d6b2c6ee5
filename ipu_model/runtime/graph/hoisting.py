"""Splits a captured graph in two: what depends on constant state alone, computed once for each weight update, and the rest.

Casts of float32 weights to half, or statistics of a proxy distribution, are then not computed again for every micro batch. Values are the
same to the last bit: the same operations run on the same inputs.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Sequence, Set

import torch
from torch import fx
from torch.fx.node import map_arg

from ..rounding import stochastic_round_to_half_in_float32
from .aliases import written_in_place
from .files import dump_graph, load_graph
from .finite import CheckedGraph


class SplitGraph:
    """`prepare(state)` gives what `run` needs besides the arguments of the whole graph; see `split_graph`."""

    def __init__(self, prologue: fx.GraphModule, body: fx.GraphModule) -> None:
        self.prologue, self.body = prologue, body
        nodes = [*_all_nodes(prologue), *_all_nodes(body)]
        self.has_random_numbers = any(_draws_random_numbers(node) for node in nodes)
        self.has_collectives = any(node.target is torch.ops.ipu_model.collective.default for node in nodes)
        self._is_checked = False
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

    def __reduce__(self) -> Any:
        return _load, (dump_graph(self.prologue), dump_graph(self.body))


def _load(prologue: Dict[str, Any], body: Dict[str, Any]) -> SplitGraph:
    return SplitGraph(load_graph(prologue), load_graph(body))


def split_graph(graph_module: fx.GraphModule, num_state: int) -> SplitGraph:
    """Split a graph whose first `num_state` flat arguments are the state: parameters, then buffers."""
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    hoisted = _hoistable(graph_module.graph, placeholders[:num_state])
    crossing = [node for node in hoisted if any(user not in hoisted for user in node.users)]
    rest = [node for node in graph_module.graph.nodes if node not in hoisted]
    return SplitGraph(
        _extract(graph_module, placeholders[:num_state], hoisted, crossing),
        _extract(graph_module, placeholders + crossing, rest, None),
    )


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
