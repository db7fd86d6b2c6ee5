"""A module's tree as text, with the blocks that its parts begin."""

from __future__ import annotations

import builtins
from typing import Any

import torch

from .wrapping import is_wrapped, own_class


def format_model(module: torch.nn.Module) -> str:
    """repr(module), each annotated part led by its `BeginBlock(user_id=..., ipu_id=...)`."""
    lines = [f"({name}): {_describe(part)}" for name, part in module.named_children()]
    extra = module.extra_repr()
    if not lines:
        return f"{_name(module)}({extra})"
    body = "\n".join(f"  {line}" for text in ([extra] if extra else []) + lines for line in text.split("\n"))
    return f"{_name(module)}(\n{body}\n)"


def _describe(module: torch.nn.Module) -> str:
    block = next((f"{hook} " for hook in module._forward_pre_hooks.values() if type(hook).__name__ == "_BeginBlockHook"), "")
    return block + format_model(module)


def _name(module: torch.nn.Module) -> str:
    return own_class(module).__name__ if is_wrapped(module) else module._get_name()


def print(*values: Any, **settings: Any) -> None:
    """Like Python's print; modules show the blocks that they begin."""
    builtins.print(*[_describe(value) if isinstance(value, torch.nn.Module) else value for value in values], **settings)
