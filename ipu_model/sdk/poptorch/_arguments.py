"""Arguments of a call against those of compilation."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch

from ipu_model.runtime.errors import Error

Inputs = Tuple[Tuple[Any, ...], Dict[str, Any]]


def check_arguments(compiled: Inputs, given: Inputs) -> None:
    """`Error` naming the first argument whose number, type, structure, dtype, shape or constant value differs."""
    if len(compiled[0]) != len(given[0]):
        raise Error(f"Number of positional arguments changed: compiled with {len(compiled[0])}, called with {len(given[0])}.")
    for index, (expected, value) in enumerate(zip(compiled[0], given[0])):
        _check(f"argument {index}", expected, value)
    _check("keyword arguments", compiled[1], given[1])


def _check(name: str, expected: Any, value: Any) -> None:
    if type(expected) is not type(value) and not (isinstance(expected, torch.Tensor) and isinstance(value, torch.Tensor)):
        raise Error(f"Type mismatch for {name}: expected {type(expected).__name__} but got {type(value).__name__}.")
    if isinstance(expected, torch.Tensor):
        if expected.dtype != value.dtype:
            raise Error(f"Data type mismatch for {name}: expected {expected.dtype} but got {value.dtype}.{_REMEDY}")
        if expected.shape != value.shape:
            raise Error(f"Shape mismatch for {name}: expected {expected.shape} but got {value.shape}.{_REMEDY}")
    elif isinstance(expected, dict):
        _check_keys(name, expected, value)
        for key in expected:
            _check(f"{name}[{key!r}]", expected[key], value[key])
    elif isinstance(expected, (list, tuple)):
        if len(expected) != len(value):
            raise Error(f"Length mismatch for {name}: expected {len(expected)} but got {len(value)}.")
        for index, (part, other) in enumerate(zip(expected, value)):
            _check(f"{name}[{index}]", part, other)
    elif expected != value:
        raise Error(f"Value mismatch for {name}: expected {expected!r} but got {value!r}; it is a constant of the graph.{_REMEDY}")


_REMEDY = " Shapes, types and constants are fixed at compilation; call destroy() to compile again."


def _check_keys(name: str, expected: Any, value: Any) -> None:
    missing = [str(key) for key in expected if key not in value]
    unexpected = [str(key) for key in value if key not in expected]
    parts = []
    if missing:
        parts.append(f"Missing arguments: {', '.join(missing)}.")
    if unexpected:
        parts.append(f"Unexpected arguments: {', '.join(unexpected)}.")
    if parts:
        raise Error(f"{' '.join(parts)} ({name})")
