"""Loops, branches and host functions while capturing: a body runs once between two marker operations, see `graph/regions.py`."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import fx

from ..errors import Error
from ..operators import define_operator
from .host_tensors import is_host_tensor
from .recording import HostFunction, current_recording

OPERATORS = torch.ops.ipu_model


def _clone_all(tensors: Sequence[torch.Tensor], *numbers: int) -> List[torch.Tensor]:
    return [tensor.clone() for tensor in tensors]


def _first_branch(condition: torch.Tensor, if_true: Sequence[torch.Tensor], if_false: Sequence[torch.Tensor]) -> List[torch.Tensor]:
    return [tensor.clone() for tensor in if_true]  # shapes while capturing; never runs


def _host_results(inputs: Sequence[torch.Tensor], function: int) -> List[torch.Tensor]:
    record = current_recording()
    assert record is not None  # shapes while capturing; never runs
    return [
        torch.empty_like(example, device=inputs[0].device if inputs else "meta") for example in record.host_functions[function].examples
    ]


define_operator("begin_region(Tensor[] inputs, int region) -> Tensor[]", _clone_all)
define_operator("end_region(Tensor[] outputs, int region, int count) -> Tensor[]", _clone_all)
define_operator("choose(Tensor condition, Tensor[] if_true, Tensor[] if_false) -> Tensor[]", _first_branch)
define_operator("call_host(Tensor[] inputs, int function) -> Tensor[]", _host_results)


def as_list(value: Any) -> List[Any]:
    """A list of what a function returned."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def capture_region(body: Callable[..., Any], inputs: Sequence[torch.Tensor], count: int = 1) -> List[torch.Tensor]:
    """Run a body once on copies of its inputs while capturing; its operations will run `count` times, outputs fed to the next run.

    Raises:
        Error: the body returns something else than tensors.
    """
    record = current_recording()
    assert record is not None
    region, record.num_regions = record.num_regions, record.num_regions + 1
    outputs = as_list(body(*OPERATORS.begin_region(_on_device(inputs), region)))
    for index, value in enumerate(outputs):
        if not isinstance(value, torch.Tensor):
            raise Error(f"The body of for_loop or cond returns tensors, got {type(value).__name__} at index {index}.")
    return OPERATORS.end_region(_on_device(outputs), region, count)


def open_regions(nodes: Sequence[fx.Node]) -> Dict[fx.Node, Tuple[fx.Node, ...]]:
    """For each node of a captured graph the beginnings of the bodies that it is in, the outermost first."""
    around: Tuple[fx.Node, ...] = ()
    regions: Dict[fx.Node, Tuple[fx.Node, ...]] = {}
    for node in nodes:
        if node.target is OPERATORS.end_region.default:
            around = around[:-1]
        regions[node] = around
        if node.target is OPERATORS.begin_region.default:
            around = (*around, node)
    return regions


def capture_host_call(function: HostFunction, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
    """Call a function on the host, in the middle of the graph."""
    record = current_recording()
    assert record is not None
    record.host_functions.append(function)
    return OPERATORS.call_host(_on_device(inputs), len(record.host_functions) - 1)


def _on_device(tensors: Sequence[torch.Tensor]) -> List[torch.Tensor]:
    return [value.to("ipu") if is_host_tensor(value) else value for value in tensors]
