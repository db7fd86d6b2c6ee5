"""The instances of a run: processes that poprun has started, or this one alone. The first one writes files and speaks."""

from __future__ import annotations

import io
from typing import Any, Iterable

import torch
from torch import nn

import popdist


def join() -> None:
    """Meet the other instances, where poprun has started several."""
    if popdist.isPopdistEnvSet():
        popdist.init()


def is_first() -> bool:
    """Whether this instance writes and speaks."""
    return popdist.getInstanceIndex() == 0


def is_alone() -> bool:
    """Whether there is no other instance."""
    return popdist.getNumInstances() == 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all instances, joined along dimension 0 in the order of the instances."""
    return popdist.allGather(tensor) if popdist.getNumInstances() > 1 else tensor


def wait_for_all() -> None:
    """Go on when all instances are here."""
    if popdist.getNumInstances() > 1:
        popdist.barrier()


def share(value: Any) -> Any:
    """The first instance's value on all: tensors, numbers, text, and lists, tuples and dicts of them."""
    if popdist.getNumInstances() == 1:
        return value
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    size = int(popdist.broadcast(torch.tensor([len(content)]))[0])
    content = popdist.broadcast(content if is_first() else torch.empty(size, dtype=torch.uint8))
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)


def share_weights(module: nn.Module) -> None:
    """Give all instances the first one's parameters and buffers."""
    _share_tensors(module.state_dict().values())


def share_buffers(module: nn.Module) -> None:
    """Give all instances the first one's buffers: batch norm's statistics are those of the first replica."""
    _share_tensors(module.buffers())


def _share_tensors(tensors: Iterable[torch.Tensor]) -> None:
    if popdist.getNumInstances() > 1:
        for tensor in tensors:
            tensor.detach().copy_(popdist.broadcast(tensor.detach()))
