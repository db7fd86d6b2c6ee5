"""Training of some layers only."""

from __future__ import annotations

import difflib
from typing import Sequence

from torch import nn

from config import ConfigError


def train_only(network: nn.Module, layers: Sequence[str]) -> None:
    """Freeze all modules but those at these paths: no gradients, and evaluation mode; ConfigError for a path that does not exist.

    Nothing is kept of a frozen layer for the backward pass, which ends at the first trainable one.
    """
    modules = dict(network.named_modules())
    for path in layers:
        if path not in modules or not path:
            near = difflib.get_close_matches(path, modules, n=1, cutoff=0.4)
            known = ", ".join(name for name in modules if name and name.count(".") <= (1 if name.startswith("blocks") else 0))
            raise ConfigError(f"trainable layer {path!r} does not exist{f'; did you mean {near[0]!r}?' if near else ''}; paths: {known}")
    network.requires_grad_(False).eval()
    for path in layers:
        modules[path].requires_grad_(True).train()
