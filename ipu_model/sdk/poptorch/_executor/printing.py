"""A module's tree as text, with the blocks that its parts begin."""

from __future__ import annotations

import builtins
from typing import Any

import torch

from .wrapping import is_wrapped, own_class


def module_repr(module: torch.nn.Module) -> str:
    """repr(module), where each module is led by its forward pre-hooks: blocks as `BeginBlock(user_id=..., ipu_id=...)`."""
    lines = [f"({name}): {module_repr(part)}" for name, part in module.named_children()]
    extra = module.extra_repr()
    head = "".join(f"{hook!r} " for hook in module._forward_pre_hooks.values()) + _name(module)
    if not lines:
        return f"{head}({extra})"
    body = "\n".join(f"  {line}" for text in ([extra] if extra else []) + lines for line in text.split("\n"))
    return f"{head}(\n{body}\n)"


def _name(module: torch.nn.Module) -> str:
    return own_class(module).__name__ if is_wrapped(module) else module._get_name()


def print(*values: Any, **settings: Any) -> None:
    """Like Python's print; modules show the blocks that they begin."""
    builtins.print(*[module_repr(value) if isinstance(value, torch.nn.Module) else value for value in values], **settings)
