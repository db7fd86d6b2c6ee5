"""Arguments of a call: put in canonical form, checked against those of compilation, and custom types."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.structures import parser_of, parsers

logger = logging.getLogger("poptorch::python")
_REMEDY = ". The inputs differ from those that the model was compiled for: wrap the model anew, or call destroy() to compile it again."
Call = Tuple[Tuple[Any, ...], Dict[str, Any]]


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

    def check(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        """`Error` naming the first value of a call in canonical form that differs from these."""
        expected, given = len(self.positional), len(args)
        if expected != given:
            raise Error(f"Number of positional arguments mismatch: expected {expected} arguments but got {given}{_REMEDY}")
        for (name, value), other in zip(self.positional, args):
            _check(name, value, other)
        _check_keys("the named inputs", self.keyword, kwargs)
        for name, value in self.keyword.items():
            _check(name, value, kwargs[name])


class ForwardSignature:
    """The arguments of forward, read once. What cannot be read counts as `(*args, **kwargs)`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:
            parameters = list(inspect.signature(lambda *args, **kwargs: None).parameters.values())
        self._slots = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._named = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
        self._rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), None)
        self._takes_any_keyword = any(p.kind == p.VAR_KEYWORD for p in parameters)
        self._by_keyword = {p.name for p in (*self._slots, *self._named) if p.kind != p.POSITIONAL_ONLY}
        self._text = ", ".join(p.name for p in parameters)

    def canonical(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Call:
        """The same call with every value in its slot: positional where the signature allows it, defaults filled in.

        Raises:
            AssertionError: too many arguments, an unknown keyword, an argument given twice.
            Error: a mandatory argument is missing.
        """
        slots = self._slots
        if len(args) > len(slots):
            assert self._rest is not None, f"Too many arguments: {len(args)} given, at most {len(slots)} expected ({self._text})"
        self._check_keywords(args, kwargs)
        positional = list(args) + [self._value(slot, kwargs) for slot in slots[len(args) :]]
        taken = {slot.name for slot in slots if slot.kind != slot.POSITIONAL_ONLY}
        named = {parameter.name: self._value(parameter, kwargs) for parameter in self._named}
        named.update((name, value) for name, value in kwargs.items() if name not in taken and name not in named)
        return tuple(positional), named

    def _check_keywords(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        given = {slot.name for slot in self._slots[: len(args)] if slot.kind != slot.POSITIONAL_ONLY} if kwargs else ()
        for name in kwargs:
            assert name in self._by_keyword or self._takes_any_keyword, f"Unknown argument {name!r}; known: {self._text}"
            assert name not in given, f"Argument {name!r} is given twice"

    def _value(self, parameter: inspect.Parameter, kwargs: Dict[str, Any]) -> Any:
        if parameter.name in kwargs and parameter.kind != parameter.POSITIONAL_ONLY:
            return kwargs[parameter.name]
        if parameter.default is parameter.empty:
            raise Error(f"Mandatory parameter {parameter.name} missing: forward takes ({self._text}).")
        return parameter.default

    def describe(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Arguments:
        """What later calls are compared with, of a call in canonical form."""
        if any(isinstance(value, dict) for value in (*args, *kwargs.values())):
            logger.warning("Dictionaries as arguments are partially supported: their keys are fixed at compilation.")
        names = [slot.name for slot in self._slots] + [f"*{self._rest}[{index}]" for index in range(len(args) - len(self._slots))]
        positional = [(name, _without_data(value)) for name, value in zip(names, args)]
        return Arguments(positional, {name: _without_data(value) for name, value in kwargs.items()})


def _without_data(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta", requires_grad=False)
    if parser_of(value) is not None:
        return _Custom(type(value), [_without_data(tensor) for tensor in parser_of(value).yieldTensors(value)])
    if isinstance(value, (dict, list, tuple)):
        return _rebuilt(value, [_without_data(part) for part in _parts(value)])
    return value


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _rebuilt(value: Any, parts: List[Any]) -> Any:
    """A dict, list or tuple of the class of another one."""
    if isinstance(value, dict):
        return type(value)(dict(zip(value, parts)))
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _check(name: str, expected: Any, value: Any) -> None:
    if isinstance(expected, torch.Tensor) and isinstance(value, torch.Tensor):
        if expected.dtype != value.dtype:
            raise Error(f"Data type mismatch for {name}: expected {expected.dtype} but got {value.dtype}{_REMEDY}")
        if expected.shape != value.shape:
            raise Error(f"Shape mismatch for {name}: expected {expected.shape} but got {value.shape}{_REMEDY}")
        return
    expected_type = expected.type if isinstance(expected, _Custom) else type(expected)
    if expected_type is not type(value):
        raise Error(f"Type mismatch for {name}: expected {expected_type} but got {type(value)}{_REMEDY}")
    if isinstance(expected, _Custom):
        _check_parts(name, expected.tensors, list(parser_of(value).yieldTensors(value)))
    elif isinstance(expected, dict):
        _check_keys(name, expected, value)
        for key, part in expected.items():
            _check(f"{name}[{key}]", part, value[key])
    elif isinstance(expected, (list, tuple)):
        _check_parts(name, expected, value)
    elif expected != value:
        raise Error(f"Value mismatch for {name}: expected {expected!r} but got {value!r}, which is a constant of the graph{_REMEDY}")


def _check_parts(name: str, expected: Any, value: Any) -> None:
    """Inside a list, constants are not compared: PopTorch looks at its tensors alone."""
    if len(expected) != len(value):
        raise Error(f"Length mismatch for {name}: expected {len(expected)} but got {len(value)}{_REMEDY}")
    for index, (part, other) in enumerate(zip(expected, value)):
        if not (isinstance(expected, list) and _is_constant(part) and _is_constant(other)):
            _check(f"{name}[{index}]", part, other)


def _is_constant(value: Any) -> bool:
    return not isinstance(value, (torch.Tensor, dict, list, tuple, _Custom)) and parser_of(value) is None


def _check_keys(name: str, expected: Any, value: Any) -> None:
    if expected.keys() == value.keys():
        return
    unexpected = sorted(str(key) for key in value if key not in expected)
    missing = sorted(str(key) for key in expected if key not in value)
    parts = [f"Unexpected arguments: {', '.join(unexpected)}"] * bool(unexpected) + [f"Missing arguments: {', '.join(missing)}"] * bool(
        missing
    )
    raise Error(f"Keys mismatch for {name}: {'. '.join(parts)}{_REMEDY}")
