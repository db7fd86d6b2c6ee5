"""Functions that run before and after every compilation."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any, Callable, ContextManager, Dict, Iterator, List

_before: Dict[int, Callable[[], None]] = {}
_after: Dict[int, Callable[[], None]] = {}
_numbers = itertools.count()
_substitutions: List[Callable[[], ContextManager[Any]]] = []


class _Handle:
    """Takes a hook back."""

    def __init__(self, hooks: Dict[int, Callable[[], None]], number: int) -> None:
        self._hooks, self._number = hooks, number

    def remove(self) -> None:
        """Do not run the hook any longer."""
        self._hooks.pop(self._number, None)


def _register(hooks: Dict[int, Callable[[], None]], hook: Callable[[], None]) -> _Handle:
    if not callable(hook):
        raise RuntimeError(f"A compile hook must be callable, got {hook!r}")
    number = next(_numbers)
    hooks[number] = hook
    return _Handle(hooks, number)


def registerPreCompileHook(hook: Callable[[], None]) -> _Handle:
    """Run a function before every compilation; the handle's remove() ends that."""
    return _register(_before, hook)


def registerPostCompileHook(hook: Callable[[], None]) -> _Handle:
    """Run a function after every compilation; the handle's remove() ends that."""
    return _register(_after, hook)


@contextlib.contextmanager
def compile_hooks() -> Iterator[None]:
    """Run the hooks around a compilation, the last ones also when it fails."""
    for hook in list(_before.values()):
        hook()
    try:
        yield
    finally:
        for hook in list(_after.values()):
            hook()


class OverwriteContextManager:
    """Where libraries register what swaps their operators while forward is captured."""

    @staticmethod
    def registerSubsitutionManager(manager: Callable[[], ContextManager[Any]]) -> None:  # PopTorch's own spelling
        """Make and enter an object of this class around every capture of forward; it is left afterwards."""
        _substitutions.append(manager)


@contextlib.contextmanager
def substitutions() -> Iterator[None]:
    """Everything that is registered, entered in order."""
    with contextlib.ExitStack() as entered:
        for manager in _substitutions:
            entered.enter_context(manager())
        yield
