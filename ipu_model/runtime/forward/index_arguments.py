"""Integer arguments that are 32 bits wide on the device and that torch demands 64 bits for: indices and class labels."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Dict, Tuple

import torch

from ..structures import map_leaves

F = torch.nn.functional
_NAMES = ("index", "indices", "target")
ITEMS = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
_OTHERS = {F.one_hot: ((0, "tensor"),), F.embedding: ((0, "input"),), **dict.fromkeys(ITEMS, ((1, "index"),))}
_INTEGERS = (torch.int32, torch.int16, torch.int8)


@functools.lru_cache(maxsize=None)
def index_arguments(func: Any) -> Tuple[Tuple[int, str], ...]:
    """(position, name) of the arguments of a torch function that are indices or labels, by its signature or its schemas."""
    if func in _OTHERS:
        return _OTHERS[func]
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{getattr(func, '__name__', '')}")
    names = [tuple(argument.name for argument in schema.arguments) for schema in schemas]
    if inspect.isfunction(func) and func.__module__ == F.__name__:
        names = [tuple(inspect.signature(func).parameters)]
    return tuple(dict.fromkeys((position, name) for row in names for position, name in enumerate(row) if name in _NAMES))


def widen_indices(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Arguments of a torch function with 64-bit indices and labels."""
    for position, name in index_arguments(func):
        if len(args) > position:
            args = (*args[:position], map_leaves(_widen, args[position]), *args[position + 1 :])
        elif name in kwargs:
            kwargs = {**kwargs, name: map_leaves(_widen, kwargs[name])}
    return args, kwargs


def _widen(value: Any) -> Any:
    return value.to(torch.int64) if isinstance(value, torch.Tensor) and value.dtype in _INTEGERS else value
