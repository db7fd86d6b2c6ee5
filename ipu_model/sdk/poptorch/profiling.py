"""Trace points for PopVision's system analyser, written where PVTI_OPTIONS is set and libpvti can be imported."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from typing import Any, Callable, Iterator


def _library() -> Any:
    if not os.environ.get("PVTI_OPTIONS"):
        return None
    try:
        return importlib.import_module("libpvti")
    except ImportError:
        return None


class Channel:
    """A named row of trace points."""

    def __init__(self, name: str) -> None:
        self._library = _library()
        self._channel = None if self._library is None else self._library.createTraceChannel(name)

    @contextlib.contextmanager
    def tracepoint(self, label: str) -> Iterator[None]:
        """Mark what runs inside."""
        if self._library is None:
            yield
            return
        self._library.Tracepoint.begin(self._channel, label)
        try:
            yield
        finally:
            self._library.Tracepoint.end(self._channel, label)

    def instrument(self, obj: Any, *methods: str) -> Any:
        """Mark every call of some methods of an object; returns the object."""
        if self._library is not None:
            for name in methods:
                setattr(obj, name, self._marked(f"{type(obj).__name__}.{name}", getattr(obj, name)))
        return obj

    def _marked(self, label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.tracepoint(label):
                return method(*args, **kwargs)

        return call
