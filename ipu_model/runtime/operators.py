"""The library of operators that captured graphs use beside torch's own: `torch.ops.ipu_model.*`."""

from __future__ import annotations

from typing import Any, Callable

import torch

_library = torch.library.Library("ipu_model", "DEF")


def define_operator(schema: str, kernel: Callable[..., Any]) -> None:
    """Register an operator; its kernel also gets meta tensors, and then returns tensors of the right shapes."""
    _library.define(schema)
    _library.impl(schema.split("(")[0], kernel, "CompositeExplicitAutograd")
