"""Captured graphs as plain data that can be pickled: operations by name, references between them by number."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Mapping, Tuple, cast

import torch
from torch import fx
from torch.fx.node import map_aggregate, map_arg

from ..errors import Error
from .regions import Branch, HostCall, Loop


class _Reference:
    """The result of the operation with this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"%{self.number}"


def dump_graph(graph_module: fx.GraphModule) -> Dict[str, Any]:
    """The operations, constants and inner modules of a graph; `Error` for an operation that lives in this process alone."""
    nodes = list(graph_module.graph.nodes)
    number = {node: index for index, node in enumerate(nodes)}
    rows: List[Tuple[Any, ...]] = []
    attributes: Dict[str, Any] = {}
    for node in nodes:
        if node.op in ("get_attr", "call_module"):
            value = _attribute(graph_module, str(node.target))
            attributes[str(node.target)] = _dump_module(value) if isinstance(value, torch.nn.Module) else value
        rows.append(describe_node(node, number))
    return {"nodes": rows, "attributes": attributes}


def describe_node(node: fx.Node, number: Mapping[fx.Node, int]) -> Tuple[str, str, Any]:
    """(kind, name of the operation, (args, kwargs)) of a node; results of other operations by their number."""
    target = node.target if isinstance(node.target, str) else _function_name(node.target)
    return node.op, target, _plain(map_arg((node.args, dict(node.kwargs)), cast(Any, lambda source: _Reference(number[source]))))


def load_graph(data: Dict[str, Any]) -> fx.GraphModule:
    """The graph that `dump_graph` took apart."""
    root = torch.nn.Module()
    for name, value in data["attributes"].items():
        if isinstance(value, dict):
            root.add_module(name, _load_module(value))
        else:
            setattr(root, name, value)
    graph = fx.Graph()
    nodes: List[fx.Node] = []
    for op, target, arguments in data["nodes"]:
        args, kwargs = map_aggregate(arguments, lambda value: nodes[value.number] if isinstance(value, _Reference) else value)
        name = str(target) if op == "placeholder" else None
        nodes.append(graph.create_node(op, _function(target) if op == "call_function" else target, args, kwargs, name))
    return fx.GraphModule(root, graph)


def _plain(value: Any) -> Any:
    """fx's immutable lists and dicts as Python's."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_plain(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def _attribute(module: torch.nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _function_name(function: Any) -> str:
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}"
    return f"{function.__module__}:{function.__qualname__}"


def _function(name: str) -> Any:
    if name.startswith("torch.ops."):
        namespace, operation, overload = name[len("torch.ops.") :].split(".")
        return getattr(getattr(getattr(torch.ops, namespace), operation), overload)
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def _dump_module(module: Any) -> Dict[str, Any]:
    if isinstance(module, Loop):
        return {"kind": "loop", "body": dump_graph(module.body), "count": module.count}
    if isinstance(module, HostCall):
        raise Error("A model with a poptorch.CPU operation cannot be saved: its Python function lives in this process.")
    assert isinstance(module, Branch), module
    return {"kind": "branch", "bodies": [dump_graph(module.if_true.body), dump_graph(module.if_false.body)]}


def _load_module(data: Dict[str, Any]) -> torch.nn.Module:
    if data["kind"] == "loop":
        return Loop(load_graph(data["body"]), data["count"])
    return Branch(*[Loop(load_graph(body), 1) for body in data["bodies"]])
