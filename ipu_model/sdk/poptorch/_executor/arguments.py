"""Arguments of a call: bound to the names of forward, checked against those of compilation, and custom types."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.structures import parser_of, parsers

logger = logging.getLogger("poptorch::python")
_REMEDY = " Shapes, types and constants are fixed at compilation; call destroy() to compile again."


class ICustomArgParser:
    """How a type of a program's own is taken apart into tensors and put together again."""

    def yieldTensors(self, struct: Any) -> Iterator[torch.Tensor]:
        """All tensors of a structure, always in the same order."""
        raise NotImplementedError(f"{type(self).__name__} must define yieldTensors")

    def reconstruct(self, original_structure: Any, tensor_iterator: Iterator[torch.Tensor]) -> Any:
        """A structure like the original one, with these tensors in it."""
        raise NotImplementedError(f"{type(self).__name__} must define reconstruct")


def registerCustomArgParser(custom_type: type, parser: Optional[ICustomArgParser]) -> None:
    """Use a parser for arguments and results of a type and its subclasses; None forgets it."""
    if parser is None:
        parsers.pop(custom_type, None)
        return
    if not isinstance(parser, ICustomArgParser):
        raise Error(f"registerCustomArgParser takes an object derived from poptorch.ICustomArgParser, got {parser!r}.")
    parsers[custom_type] = parser


@dataclass(frozen=True)
class _Custom:
    """What is kept of an argument of a custom type."""

    type: type
    tensors: List[torch.Tensor]


@dataclass(frozen=True)
class Arguments:
    """Shapes, types and constants of a call: tensors without their data."""

    positional: List[Tuple[str, Any]]
    keyword: Dict[str, Any]


class ForwardSignature:
    """The arguments of forward, read once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._known = list(self._signature.parameters)
        self._positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._mandatory = [p.name for p in parameters if p.default is p.empty]
        self._is_open = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)

    def bind(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> List[str]:
        """Check arguments as PopTorch does; returns the names of the positional ones.

        Raises:
            AssertionError: too many arguments, an unknown keyword, an argument given twice.
            Error: a mandatory argument is missing.
        """
        names, known = self._positional, self._known
        if self._is_open:
            self._signature.bind(*args, **kwargs)  # Python's own TypeError
            return [*names, *(f"args[{index}]" for index in range(len(args) - len(names)))][: len(args)]
        assert len(args) <= len(names), f"Too many arguments: {len(args)} given, at most {len(names)} expected ({', '.join(known)})"
        given = names[: len(args)]
        for name in kwargs:
            assert name in known, f"Unknown argument {name!r}; known: {', '.join(known)}"
            assert name not in given, f"Argument {name!r} is given twice"
        for name in self._mandatory:
            if name not in given and name not in kwargs:
                raise Error(f"Mandatory parameter {name} missing: forward takes ({', '.join(known)}).")
        return given


def describe(names: List[str], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Arguments:
    """What later calls are compared with."""
    if any(isinstance(value, dict) for value in (*args, *kwargs.values())):
        logger.warning("Dictionaries as arguments are partially supported: their keys are fixed at compilation.")
    return Arguments([(name, _without_data(value)) for name, value in zip(names, args)], {k: _without_data(v) for k, v in kwargs.items()})


def _without_data(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta", requires_grad=False)
    if parser_of(value) is not None:
        return _Custom(type(value), [_without_data(tensor) for tensor in parser_of(value).yieldTensors(value)])
    if isinstance(value, dict):
        return type(value)({key: _without_data(part) for key, part in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_without_data(part) for part in value])
    return type(value)(_without_data(part) for part in value) if isinstance(value, (list, tuple)) else value


def check_arguments(compiled: Arguments, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
    """`Error` naming the first argument whose number, type, structure, dtype, shape or constant value differs."""
    if len(compiled.positional) != len(args):
        raise Error(f"Number of positional arguments changed: compiled with {len(compiled.positional)}, called with {len(args)}.")
    for (name, expected), value in zip(compiled.positional, args):
        _check(name, expected, value)
    _check_keys("keyword arguments", compiled.keyword, kwargs)
    for name, expected in compiled.keyword.items():
        _check(name, expected, kwargs[name])


def _check(name: str, expected: Any, value: Any) -> None:
    if isinstance(expected, torch.Tensor) and isinstance(value, torch.Tensor):
        if expected.dtype != value.dtype:
            raise Error(f"Data type mismatch for {name}: expected {expected.dtype} but got {value.dtype}.{_REMEDY}")
        if expected.shape != value.shape:
            raise Error(f"Shape mismatch for {name}: expected {expected.shape} but got {value.shape}.{_REMEDY}")
        return
    expected_type = expected.type if isinstance(expected, _Custom) else type(expected)
    if expected_type is not type(value):
        raise Error(f"Type mismatch for {name}: expected {expected_type.__name__} but got {type(value).__name__}.")
    if isinstance(expected, _Custom):
        _check_all(name, expected.tensors, list(parser_of(value).yieldTensors(value)))
    elif isinstance(expected, dict):
        _check_keys(name, expected, value)
        for key in expected:
            _check(f"{name}[{key!r}]", expected[key], value[key])
    elif isinstance(expected, (list, tuple)):
        _check_all(name, expected, value)
    elif expected != value:
        raise Error(f"Value mismatch for {name}: expected {expected!r} but got {value!r}; it is a constant of the graph.{_REMEDY}")


def _check_all(name: str, expected: Any, value: Any) -> None:
    if len(expected) != len(value):
        raise Error(f"Length mismatch for {name}: expected {len(expected)} but got {len(value)}.")
    for index, (part, other) in enumerate(zip(expected, value)):
        _check(f"{name}[{index}]", part, other)


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
