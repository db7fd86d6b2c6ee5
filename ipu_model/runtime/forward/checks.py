"""What is refused of a forward that has run."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import types
import warnings
from typing import Any, Dict, Iterator, List, Mapping, Set

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import Error
from .host_tensors import is_host_tensor
from .recording import Recording

_COLLECTIONS = (list, tuple, set, frozenset, collections.deque, collections.abc.KeysView, collections.abc.ValuesView)


@contextlib.contextmanager
def bindings_checked(model: torch.nn.Module, state: Dict[str, torch.Tensor]) -> Iterator[None]:
    """`Error` when forward removes a buffer or parameter, or binds another tensor to its name; BatchNorm may."""

    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}

    def check(module: torch.nn.Module, arguments: Any, result: Any) -> None:
        exempt = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, torch.nn.modules.batchnorm._NormBase))
        present = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
        for name, tensor in state.items():
            if name.startswith(exempt) if exempt else False:
                continue
            kind = "Parameter" if name in parameters else "Buffer"
            if name not in present:
                raise Error(
                    f"{kind} {name} is removed from the model when calling the forward method: keep it, and write new values into it with "
                    f"self.{name}.copy_(src)."
                )
            if present[name] is not tensor:
                raise Error(
                    f"{kind} {name} is reassigned within the model when calling the forward method: write the new value into it with "
                    f"self.{name}.copy_(src)."
                )

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def check_overlap(record: Recording, inputs: List[Any], outputs: List[Any]) -> None:
    """`Error` for overlap annotations of what is no input or output of the graph, or is used beside them."""
    overlap = record.overlap
    for given, _, _ in overlap.inputs:
        if id(given) in record.used_inputs:
            raise Error("poptorch.set_overlap_for_input must be the only use of an input: use the tensor that it returns everywhere.")
        if not any(given is leaf for leaf in inputs):
            raise Error("poptorch.set_overlap_for_input applied on a tensor that is not an input of forward: annotate the argument.")
    for _, returned, _ in overlap.outputs:
        uses = sum(returned is leaf for leaf in outputs)
        if uses == 0:
            raise Error("poptorch.set_overlap_for_output applied on a tensor that forward does not return: return the annotated tensor.")
        if uses > 1:
            raise Error("poptorch.set_overlap_for_output must be the only use of an output: the same tensor is returned twice.")


def host_constant(value: Any) -> Any:
    """What comes back from every call in place of a result that is no tensor of the device: a tensor as it is now, other values themselves.

    Raises:
        Error: an object that holds tensors of the device, but is no dict, list, tuple or registered type.
    """
    if isinstance(value, torch.Tensor):
        warnings.warn(
            f"forward returns a tensor that is on {value.device}, not on the IPU: it comes back from every call as it was at compilation.",
            UserWarning,
            stacklevel=2,
        )
        with _disable_current_modes():
            return value.detach().clone()
    if _holds_placeholders(value, set()):
        kind = type(value)
        raise Error(
            f"forward returns an object of {kind.__module__}.{kind.__qualname__}, which holds tensors but is no dict, list or tuple: "
            "return its tensors, or register a parser for the type with poptorch.registerCustomArgParser."
        )
    return value


def _holds_placeholders(value: Any, seen: Set[int]) -> bool:
    """Whether a traced tensor is within reach of an object: in its attributes, or in a collection."""
    if isinstance(value, torch.Tensor):
        return not is_host_tensor(value)
    if id(value) in seen or isinstance(value, (type, types.ModuleType, types.FunctionType, torch.nn.Module)):
        return False
    seen.add(id(value))
    slots = [getattr(value, name, None) for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    inside = list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, _COLLECTIONS) else []
    return any(_holds_placeholders(part, seen) for part in (*inside, *slots, *getattr(value, "__dict__", {}).values()))
