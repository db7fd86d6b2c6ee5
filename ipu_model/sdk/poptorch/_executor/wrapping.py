"""A training model changes the classes of the user's module, parameters and buffers, so that looking at them downloads first.

The first base of such a class is the object's own class: programs find it there.
"""

from __future__ import annotations

import weakref
from typing import Any, Dict, List, Protocol, Tuple

import torch

from ipu_model.runtime.errors import Error

_OWNERS = "_poptorch_owners"


class Owner(Protocol):
    """What a wrapped object asks of the training model that it belongs to."""

    def download_if_stale(self) -> bool:
        """Bring the host's weights up to date; returns whether they were not."""
        ...

    def destroy(self) -> None:
        """End the training model."""
        ...


_set_aside: weakref.WeakKeyDictionary[torch.nn.Module, Owner] = weakref.WeakKeyDictionary()  # of modules that are unwrapped for a while


def is_wrapped(value: Any) -> bool:
    """Whether a training model owns a module, a parameter or a buffer."""
    return _OWNERS in vars(type(value))


def owner_of(module: Any) -> Any:
    """The training model that owns a module, None where there is none."""
    return _owners(type(module))[0] if is_wrapped(module) else None


def wrap(module: torch.nn.Module, owner: Owner) -> None:
    """Make host access to a module, its parameters and its buffers download the weights.

    Parts may be shared with other training models: looking at a shared tensor asks each of them.

    Raises:
        RuntimeError: a training model owns the module already.
        Error: a buffer is of a class other than torch.Tensor.
    """
    if is_wrapped(module):
        raise RuntimeError(
            "Model has already been wrapped in 'poptorch.trainingModel': call model.destroy(), or destroy() on that executor, first."
        )
    for name, buffer in module.named_buffers():
        if type(buffer) is not torch.Tensor and not is_wrapped(buffer):
            raise Error(f"Buffer {name} is a {type(buffer).__name__}, expected a plain torch.Tensor: register a plain tensor.")
    for tensor, kind in _tensors(module):
        owners = _owners(type(tensor)) if is_wrapped(tensor) else []
        original = own_class(tensor)
        tensor.__class__ = _wrapped_class(original, f"Poptorch{kind}", _tensor_methods(original), [*owners, owner])
    original = type(module)
    module.__class__ = _wrapped_class(original, f"Poptorch{original.__name__}", _module_methods(original), [owner])


def unwrap(module: torch.nn.Module) -> None:
    """Give a module, its parameters and its buffers their own classes back, but for those that belong to another training model too."""
    owner = owner_of(module)
    if owner is None:
        return
    unwrap_object(module)
    for tensor, kind in _tensors(module):
        if is_wrapped(tensor):
            others = [other for other in _owners(type(tensor)) if other is not owner]
            original = own_class(tensor)
            tensor.__class__ = _wrapped_class(original, f"Poptorch{kind}", _tensor_methods(original), others) if others else original


def set_aside(module: torch.nn.Module) -> None:
    """Unwrap a module until `take_up`."""
    owner = owner_of(module)
    if owner is not None:
        unwrap(module)
        _set_aside[module] = owner


def take_up(module: torch.nn.Module) -> None:
    """Wrap a module again that was set aside."""
    owner = _set_aside.pop(module, None)
    if owner is not None and not is_wrapped(module):
        wrap(module, owner)


def own_class(value: Any) -> Any:
    """The class that a module, parameter or buffer has without a training model."""
    return type(value).__bases__[0] if is_wrapped(value) else type(value)


def unwrap_object(value: Any) -> Any:
    """Give one module, parameter or buffer its own class back; returns it."""
    if is_wrapped(value):
        value.__class__ = own_class(value)
    return value


def _tensors(module: torch.nn.Module) -> List[Tuple[Any, str]]:
    """Parameters and buffers, with what their wrapped class is called."""
    return [*((value, "Parameter") for value in module.parameters()), *((value, "Buffer") for value in module.buffers())]


def _owners(wrapped: type) -> List[Any]:
    return vars(wrapped)[_OWNERS]


def _wrapped_class(original: Any, name: str, methods: Dict[str, Any], owners: List[Any]) -> Any:
    """The class of one object: what it trained stays within reach as long as the object lives."""
    return type(name, (original,), {**methods, _OWNERS: owners, "__module__": original.__module__})


def _look(wrapped: type) -> bool:
    """Download from every owner that is ahead of the host; returns whether one was."""
    return any([owner.download_if_stale() for owner in _owners(wrapped)])


def _tensor_methods(original: Any) -> Dict[str, Any]:
    """A parameter or buffer that is downloaded before anyone looks at it; copies and pickles are of its own class."""

    def plain(self: Any, data: torch.Tensor) -> torch.Tensor:
        return original(data, self.requires_grad) if issubclass(original, torch.nn.Parameter) else data

    def get_attribute(self: Any, name: str) -> Any:
        _look(type(self))
        return original.__getattribute__(self, name)

    def torch_function(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for kind in types:
            if _OWNERS in vars(kind):
                _look(kind)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def deep_copy(self: Any, memo: Dict[int, Any]) -> torch.Tensor:
        memo[id(self)] = plain(self, self.data.clone())
        return memo[id(self)]

    def reduce(self: Any, protocol: Any) -> Any:
        return plain(self, self.data).__reduce_ex__(protocol)

    return {
        "__getattribute__": get_attribute,
        "__torch_function__": classmethod(torch_function),
        "__deepcopy__": deep_copy,
        "__reduce_ex__": reduce,
    }


def _module_methods(original: Any) -> Dict[str, Any]:
    """What a wrapped module has beside its own class."""

    def looked(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            _look(type(self))
            return getattr(original, name)(self, *args, **kwargs)

        return method

    def copyWeightsToHostIfNeeded(self: Any) -> bool:
        """Download if stale."""
        return _look(type(self))

    def destroy(self: Any) -> None:
        """Destroy the training model that owns this module."""
        owner_of(self).destroy()

    def reduce(self: Any, protocol: Any) -> Any:
        """Copies and pickles are of the module's own class."""
        _look(type(self))
        return _restore, (original, dict(self.__dict__))

    methods: Dict[str, Any] = {name: looked(name) for name in ("state_dict", "named_parameters", "__call__")}
    return {**methods, "copyWeightsToHostIfNeeded": copyWeightsToHostIfNeeded, "destroy": destroy, "__reduce_ex__": reduce}


def _restore(original: Any, state: Dict[str, Any]) -> Any:
    module = original.__new__(original)
    module.__setstate__(state)
    return module
