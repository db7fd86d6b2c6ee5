"""Cuts a model into pipeline stages at module paths."""

from __future__ import annotations

import difflib
from typing import List, Sequence

from torch import nn

import poptorch
from config import AUTOMATIC_SPLITS, ConfigError


def place_on_ipus(model: nn.Module, network: nn.Module, splits: Sequence[str]) -> None:
    """Begin IPU 0 at the model, and the following IPUs at the network's modules named by `splits`.

    Args:
        model: the module whose forward the device runs; `network` is a part of it.
        splits: module paths within the network in order of execution, such as `blocks.2.1`; `auto`, which are still to be found, are none.

    Raises:
        ConfigError: a path that the network lacks, a repeated path, or paths out of order; the valid ones are named.
    """
    if not splits or tuple(splits) == AUTOMATIC_SPLITS:
        return
    order = module_paths(network)
    _check(splits, order)
    poptorch.BeginBlock(model, "stage0", ipu_id=0)
    for index, path in enumerate(splits, start=1):
        poptorch.BeginBlock(network.get_submodule(path), f"stage{index}", ipu_id=index)


def module_paths(network: nn.Module) -> List[str]:
    """Dotted paths of all modules below a network, in the order in which they are defined, which is that of execution."""
    return [path for path, _ in network.named_modules() if path]


def _check(splits: Sequence[str], order: List[str]) -> None:
    for path in splits:
        if path not in order:
            blocks = [name for name in order if name.count(".") == 2 or "." not in name]
            matches = difflib.get_close_matches(path, order, n=1)
            suggestion = f"; did you mean {matches[0]!r}?" if matches else ""
            raise ConfigError(f"pipeline_splits: the network has no module {path!r}{suggestion}; blocks: {_shorten(blocks)}")
    positions = [order.index(path) for path in splits]
    if positions != sorted(set(positions)):
        ordered = sorted(set(splits), key=order.index)
        raise ConfigError(f"pipeline_splits must be in order of execution, each once: got {list(splits)}, expected {ordered}")


def _shorten(paths: Sequence[str], limit: int = 60) -> str:
    shown = [path for path in paths if path.startswith(("blocks", "layer"))] or list(paths)
    return ", ".join(shown[:limit])


def split_candidates(network: nn.Module) -> List[str]:
    """Paths at which a network is usually cut: its repeated blocks (`blocks.2.1`, `layer3.0`), in order of execution."""
    return [path for path in module_paths(network) if _is_block(path)]


def _is_block(path: str) -> bool:
    parts = path.split(".")
    is_numbered = all(part.isdigit() for part in parts[1:]) and len(parts) > 1
    return is_numbered and (len(parts) == 3 if parts[0] == "blocks" else parts[0].startswith("layer") and len(parts) == 2)
