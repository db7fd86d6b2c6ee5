"""What PopTorch 2 had and PopTorch 3 has not: renamed options, and autocasting, which types of inputs and weights have replaced."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Sequence, Set

logger = logging.getLogger("poptorch::python")
_said: Set[str] = set()
_TYPES_FOLLOW = "operations run in the types of their inputs and weights: use model.half() and half inputs where half is wanted"


def _warn_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        logger.warning("%s", text)


def warn_renamed(former: str, successor: str) -> None:
    """Say once that a name is PopTorch 2's."""
    _warn_once(f"{former} is a name of PopTorch 2; it is called {successor} now.")


def warn_autocast(name: str, is_enabled: bool) -> None:
    """Say once that nothing is cast where a program asks for it."""
    if is_enabled:
        _warn_once(f"{name} belongs to PopTorch 2 and casts nothing: {_TYPES_FOLLOW}.")


class Policy:
    """PopTorch 2's lists of operations to cast; kept, without effect."""

    def __init__(
        self,
        fp16: Sequence[Any] = (),
        fp32: Sequence[Any] = (),
        promote: Sequence[Any] = (),
        demote: Sequence[Any] = (),
    ) -> None:
        self.fp16, self.fp32, self.promote, self.demote = list(fp16), list(fp32), list(promote), list(demote)


class autocast(contextlib.ContextDecorator):  # noqa: N801  PopTorch 2's name
    """PopTorch 2's scope in which operations were cast: a context manager and a decorator that casts nothing and says so once."""

    def __init__(self, enabled: bool = True) -> None:
        self._is_enabled = enabled

    def __enter__(self) -> autocast:
        warn_autocast("poptorch.autocast", self._is_enabled)
        return self

    def __exit__(self, *exception: Any) -> None:
        pass
