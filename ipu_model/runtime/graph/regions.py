"""Loops and branches as parts of a captured graph: what lies between two markers of `forward/control_flow.py` becomes a module."""

from __future__ import annotations

from typing import Any, List, Sequence, Set, Tuple, cast

import torch
from torch import fx

from ..errors import Error
from ..forward.control_flow import OPERATORS, as_list
from ..forward.recording import HostFunction, on_host


class Loop(torch.nn.Module):
    """A body that runs a number of times on copies of its carried inputs; what it reads of the outer graph is `free`."""

    def __init__(self, body: fx.GraphModule, count: int) -> None:
        super().__init__()
        self.body, self.count = body, count

    def forward(self, carried: List[torch.Tensor], free: List[torch.Tensor]) -> List[torch.Tensor]:
        """The carried values after the last run."""
        for _ in range(self.count):
            carried = self.body(*[value.clone() for value in carried], *free)
        return list(carried)


class HostCall(torch.nn.Module):
    """Python code that runs on the host in the middle of the graph."""

    def __init__(self, function: HostFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: List[torch.Tensor]) -> List[torch.Tensor]:
        """Results on the device of the inputs; `Error` where they are made otherwise than at compilation."""
        with on_host():
            results = as_list(self.function.call(*[value.to("cpu", dtype) for value, dtype in zip(inputs, self.function.dtypes)]))
        for result, example in zip(results, self.function.examples):
            if result.shape != example.shape or result.dtype != example.dtype:
                raise Error(
                    f"poptorch.CPU: expected a result of {example.dtype} and shape {tuple(example.shape)} as at compilation, "
                    f"got {result.dtype} and {tuple(result.shape)}."
                )
        device = inputs[0].device if inputs else torch.device("cpu")
        return [_between(result.detach().to(device)) for result in results]


def _between(value: torch.Tensor) -> torch.Tensor:
    """Half is float32 between the borders of a graph on a CPU, see `half.py`."""
    return value.to(torch.float32) if value.dtype == torch.float16 and value.device.type == "cpu" else value


class Branch(torch.nn.Module):
    """One of two bodies, by a boolean tensor."""

    def __init__(self, if_true: Loop, if_false: Loop) -> None:
        super().__init__()
        self.if_true, self.if_false = if_true, if_false

    def forward(self, condition: torch.Tensor, true_inputs: Any, false_inputs: Any) -> List[torch.Tensor]:
        """Results of the chosen body."""
        return self.if_true(*true_inputs) if bool(condition) else self.if_false(*false_inputs)


def outline_regions(owner: fx.GraphModule, host_functions: Sequence[HostFunction]) -> None:
    """Replace marked regions of a captured graph by `Loop` and `Branch` modules, and calls of the host by `HostCall`, in place.

    Markers are met in the order in which forward ended its regions: what is inside of a region is a module already when its turn comes.
    """
    for node in list(owner.graph.nodes):
        if node.target is OPERATORS.end_region.default:
            _outline(owner, node)
        elif node.target is OPERATORS.choose.default:
            _join_branches(owner, node)
        elif node.target is OPERATORS.call_host.default:
            _call_host(owner, node, host_functions)
    owner.delete_all_unused_submodules()
    owner.graph.lint()


def _call_host(owner: fx.GraphModule, node: fx.Node, host_functions: Sequence[HostFunction]) -> None:
    inputs, number = cast(Any, node.args)
    owner.add_module(f"host_{number}", HostCall(host_functions[number]))
    with owner.graph.inserting_before(node):
        call = owner.graph.call_module(f"host_{number}", (inputs,))
    call.meta.update(node.meta)
    node.replace_all_uses_with(call)
    owner.graph.erase_node(node)


def _outline(owner: fx.GraphModule, end: fx.Node) -> None:
    outputs, region, count = cast(Any, end.args)
    nodes = list(owner.graph.nodes)
    begin = next(n for n in nodes if n.target is OPERATORS.begin_region.default and n.args[1] == region)
    inside = nodes[nodes.index(begin) + 1 : nodes.index(end)]
    entries = [node for node in inside if node.args and node.args[0] is begin]
    members = [node for node in inside if node not in entries and node.op != "placeholder"]
    body, free = _extract_body(owner, begin, entries, members, outputs)
    name = f"region_{region}"
    owner.add_module(name, Loop(body, count))
    with owner.graph.inserting_before(end):
        call = owner.graph.call_module(name, (list(begin.args[0]), free))
    call.meta.update(end.meta)
    end.replace_all_uses_with(call)
    for node in (end, *reversed(members), *entries, begin):
        if node.users:
            raise Error("A value computed inside the body of for_loop or cond is used outside of it: return it from the body.")
        owner.graph.erase_node(node)


def _extract_body(
    owner: fx.GraphModule, begin: fx.Node, entries: List[fx.Node], members: List[fx.Node], outputs: Any
) -> Tuple[fx.GraphModule, List[fx.Node]]:
    graph = fx.Graph()
    carried = [graph.placeholder(f"carried_{index}") for index in range(len(begin.args[0]))]  # type: ignore[arg-type]
    known: Set[fx.Node] = {*entries, *members}
    needed = [source for node in members for source in node.all_input_nodes] + list(outputs)
    free = list(dict.fromkeys(node for node in needed if node not in known))
    copies = {node: carried[node.args[1]] for node in entries}  # type: ignore[index]
    copies.update({node: graph.placeholder(f"free_{index}") for index, node in enumerate(free)})
    for node in members:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output([copies[node] for node in outputs])
    return fx.GraphModule(owner, graph), free


def _join_branches(owner: fx.GraphModule, choice: fx.Node) -> None:
    condition, if_true, if_false = cast(Any, choice.args)
    calls: List[fx.Node] = [outputs[0].args[0] for outputs in (if_true, if_false)]
    name = f"branch_{choice.name}"
    owner.add_module(name, Branch(*[owner.get_submodule(call.target) for call in calls]))  # type: ignore[arg-type]
    with owner.graph.inserting_before(choice):
        branch = owner.graph.call_module(name, (condition, calls[0].args, calls[1].args))
    branch.meta.update(choice.meta)
    choice.replace_all_uses_with(branch)
    owner.graph.erase_node(choice)
    for call in reversed(calls):
        for item in list(call.users):
            owner.graph.erase_node(item)
        owner.graph.erase_node(call)
