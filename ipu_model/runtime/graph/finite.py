"""Floating-point exceptions: the operation at which a value that is not finite appears."""

from __future__ import annotations

import math
from typing import Any, List

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..errors import Error


class CheckedGraph(fx.Interpreter):
    """Runs a graph operation by operation.

    `Error` at the first that makes NaN of numbers (inf - inf, 0 * inf, invalid operations), infinity of finite numbers (division by zero,
    overflow), or compares NaN. An infinity that the program itself writes, such as a mask's, is none.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=True)

    def __call__(self, *arguments: Any) -> Any:
        """Run the graph."""
        return self.run(*arguments, enable_io_processing=False)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation and check it."""
        if n.op != "call_function":
            return super().run_node(n)
        before = _floats(self.fetch_args_kwargs_from_env(n))
        had_nan = any(bool(value.isnan().any()) for value in before)
        had_infinity = any(bool(value.isinf().any()) for value in before)
        result = super().run_node(n)
        if had_nan and getattr(n.target, "__name__", "").split(".")[0] in ("lt", "le", "gt", "ge", "eq", "ne"):
            raise _exception(n, "compares NaN")
        for value in _floats(result):
            if not had_nan and bool(value.isnan().any()):
                raise _exception(n, "makes NaN")
            if before and not had_nan and not had_infinity and bool(value.isinf().any()) and not _writes_infinity(n):
                raise _exception(n, "divides by zero or overflows")
        return result


def _floats(values: Any) -> List[torch.Tensor]:
    return [value for value in pytree.tree_flatten(values)[0] if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _writes_infinity(node: fx.Node) -> bool:
    values = pytree.tree_flatten((node.args, node.kwargs))[0]
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)


def _exception(node: fx.Node, what: str) -> Error:
    return Error(f"Floating-point exception: {node.target} {what} (enableFloatingPointExceptions is on).", type="poplar_runtime_error")
