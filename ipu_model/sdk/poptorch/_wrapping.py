"""A training model changes the class of the user's module, so that looking at its weights downloads them first."""

from __future__ import annotations

import weakref
from typing import Any, Dict, Iterator, Tuple

import torch

_ATTRIBUTE = "_poptorch_executor"


def is_wrapped(module: torch.nn.Module) -> bool:
    """Whether a training executor owns the module."""
    return _ATTRIBUTE in module.__dict__


def wrap(module: torch.nn.Module, executor: Any) -> None:
    """Make host access to a module download its weights; RuntimeError when that is already so."""
    if is_wrapped(module):
        raise RuntimeError("Model has already been wrapped in trainingModel: call destroy() on that executor, or on the model, first.")
    module.__dict__[_ATTRIBUTE] = weakref.ref(executor)
    original = type(module)
    module.__class__ = type(f"Poptorch{original.__name__}", (_WrappedModule, original), {"__reduce_ex__": _plain_reduce})


def unwrap(module: torch.nn.Module) -> None:
    """Give a module its own class back."""
    if is_wrapped(module):
        module.__class__ = type(module).__bases__[1]
        del module.__dict__[_ATTRIBUTE]


class _WrappedModule:
    """What a wrapped module has beside its own class."""

    def _executor(self) -> Any:
        return self.__dict__[_ATTRIBUTE]()

    def copyWeightsToHostIfNeeded(self) -> bool:
        """Download if stale."""
        executor = self._executor()
        return executor is not None and executor.copyWeightsToHostIfNeeded()

    def destroy(self) -> None:
        """Destroy the executor that owns this module."""
        executor = self._executor()
        if executor is not None:
            executor.destroy()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.copyWeightsToHostIfNeeded()
        return super().state_dict(*args, **kwargs)  # type: ignore[misc]

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Tuple[str, torch.nn.Parameter]]:
        self.copyWeightsToHostIfNeeded()
        return super().named_parameters(*args, **kwargs)  # type: ignore[misc]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.copyWeightsToHostIfNeeded()
        return super().__call__(*args, **kwargs)  # type: ignore[misc]


def _plain_reduce(self: Any, protocol: int) -> Any:
    """Copies and pickles are of the module's own class."""
    self.copyWeightsToHostIfNeeded()
    state = {key: value for key, value in self.__dict__.items() if key != _ATTRIBUTE}
    return _restore, (type(self).__bases__[1], state)


def _restore(original: Any, state: Dict[str, Any]) -> Any:
    module = original.__new__(original)
    module.__setstate__(state)
    return module
