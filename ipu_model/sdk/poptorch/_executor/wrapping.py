"""A training model changes the classes of the user's module, parameters and buffers, so that looking at them downloads first."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Tuple

import torch

from ipu_model.runtime.errors import Error

_ATTRIBUTE = "_poptorch_executor"


def is_wrapped(module: torch.nn.Module) -> bool:
    """Whether a training executor owns the module."""
    return _ATTRIBUTE in module.__dict__


def wrap(module: torch.nn.Module, executor: Any) -> None:
    """Make host access to a module, its parameters and its buffers download the weights.

    Raises:
        RuntimeError: a training model owns the module, or a part of it, already.
        Error: a buffer is of a class other than torch.Tensor.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if is_wrapped(module) or any(isinstance(tensor, _WrappedTensor) for tensor in tensors):
        raise RuntimeError("Model has already been wrapped in trainingModel: call destroy() on that executor, or on the model, first.")
    for name, buffer in module.named_buffers():
        if type(buffer) is not torch.Tensor:
            raise Error(f"Buffer {name} is a {type(buffer).__name__}, expected a plain torch.Tensor: register a plain tensor.")
    for tensor in tensors:
        tensor.__class__ = _wrapped_class(_WrappedTensor, type(tensor), executor)
    module.__dict__[_ATTRIBUTE] = executor
    module.__class__ = _wrapped_class(_WrappedModule, type(module), executor)


def _wrapped_class(mixin: type, original: type, executor: Any) -> type:
    """The class that belongs to one executor: what it trained stays within reach as long as the model lives."""
    return type(f"Poptorch{original.__name__}", (mixin, original), {"_poptorch_owner": executor})


def unwrap(module: torch.nn.Module) -> None:
    """Give a module, its parameters and its buffers their own classes back."""
    if not is_wrapped(module):
        return
    module.__class__ = type(module).__bases__[1]
    del module.__dict__[_ATTRIBUTE]
    for tensor in [*module.parameters(), *module.buffers()]:
        if isinstance(tensor, _WrappedTensor):
            tensor.__class__ = type(tensor).__bases__[1]


def _download(wrapped_class: Any) -> bool:
    return wrapped_class._poptorch_owner.copyWeightsToHostIfNeeded()


class _WrappedTensor:
    """A parameter or buffer that is downloaded before anyone looks at it."""

    def __getattribute__(self, name: str) -> Any:
        _download(type(self))
        return super().__getattribute__(name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        _download(cls)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def _plain(self, data: torch.Tensor) -> torch.Tensor:
        original: Any = type(self).__bases__[1]
        return original(data, self.requires_grad) if issubclass(original, torch.nn.Parameter) else data  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: Dict[int, Any]) -> torch.Tensor:
        memo[id(self)] = self._plain(self.data.clone())  # type: ignore[attr-defined]
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._plain(self.data).__reduce_ex__(protocol)  # type: ignore[attr-defined]


class _WrappedModule:
    """What a wrapped module has beside its own class."""

    def _executor(self) -> Any:
        return self.__dict__[_ATTRIBUTE]

    def copyWeightsToHostIfNeeded(self) -> bool:
        """Download if stale."""
        return _download(type(self))

    def destroy(self) -> None:
        """Destroy the executor that owns this module."""
        self._executor().destroy()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.copyWeightsToHostIfNeeded()
        return super().state_dict(*args, **kwargs)  # type: ignore[misc]

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Tuple[str, torch.nn.Parameter]]:
        self.copyWeightsToHostIfNeeded()
        return super().named_parameters(*args, **kwargs)  # type: ignore[misc]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.copyWeightsToHostIfNeeded()
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles are of the module's own class."""
        self.copyWeightsToHostIfNeeded()
        state = {key: value for key, value in self.__dict__.items() if key != _ATTRIBUTE}
        return _restore, (type(self).__bases__[1], state)


def _restore(original: Any, state: Dict[str, Any]) -> Any:
    module = original.__new__(original)
    module.__setstate__(state)
    return module
