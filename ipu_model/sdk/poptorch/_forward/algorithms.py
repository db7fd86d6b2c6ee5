"""Operations of PopTorch that torch does not have: slices at tensor positions, CTC decoding, point clouds."""

from __future__ import annotations

import math
from typing import List, Optional, Sequence, Tuple

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward import beam_search as beam_search  # defines the operator
from ipu_model.runtime.forward.slices import take_slice


def _check_slice(name: str, dim: int, start: torch.Tensor, **numbers: int) -> None:
    if not isinstance(start, torch.Tensor) or start.is_floating_point() or start.numel() != 1:
        raise Error(f"poptorch.{name}: start must be an integer tensor of one element, got {start!r}.")
    for key, value in dict(dim=dim, **numbers).items():
        if not isinstance(value, int):
            raise Error(f"poptorch.{name}: {key} must be an int, got {value!r}.")


def dynamic_slice(tensor: torch.Tensor, dim: int, start: torch.Tensor, size: int, step: int) -> torch.Tensor:
    """`size` elements of a dimension from `start` (a tensor), every `step`-th of them."""
    _check_slice("dynamic_slice", dim, start, size=size, step=step)
    return take_slice(tensor, dim, start, size, step)


def dynamic_update(input: torch.Tensor, src: torch.Tensor, dim: int, start: torch.Tensor, size: int) -> torch.Tensor:
    """`input` with `src` written to `size` elements of a dimension from `start` (a tensor)."""
    _check_slice("dynamic_update", dim, start, size=size)
    if input.dim() != src.dim():
        raise Error(f"input and src tensors must have as many dimensions as each other, got {input.dim()} and {src.dim()}.")
    if input.dtype != src.dtype:
        raise Error(f"input and src tensor must be of one type, got {input.dtype} and {src.dtype}.")
    positions = start.reshape(1).to(torch.int64) + torch.arange(size, device=input.device)
    return input.index_copy(dim, positions, src)


def ctc_beam_search_decoder(
    probs: torch.Tensor, lengths: torch.Tensor, blank: int = 0, beam_width: int = 100, top_paths: int = 1
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Likeliest label sequences of log-probabilities [T, B, C]: (log-probabilities [B, top], lengths [B, top], paths [B, top, T])."""
    for name, value in (("probs", probs), ("lengths", lengths)):
        if not isinstance(value, torch.Tensor):
            raise Error(f"ctc_beam_search_decoder: {name} must be a tensor, got {value!r}.")
    if probs.dim() != 3 or not 0 < top_paths <= beam_width or not 0 <= blank < probs.shape[2]:
        raise Error(
            f"ctc_beam_search_decoder: expected probs [T, B, C] and 0 < top_paths <= beam_width and blank < C, got shape "
            f"{tuple(probs.shape)}, top_paths {top_paths}, beam_width {beam_width}, blank {blank}."
        )
    return torch.ops.ipu_model.ctc_beam_search(probs, lengths, blank, beam_width, top_paths)


def fps(src: torch.Tensor, ptr: Sequence[int], ratio: float = 0.5, random_start: bool = False) -> torch.Tensor:
    """Farthest point sampling: indices of ceil(ratio * n) points of each cloud, each the farthest from those before it.

    Args:
        src: [points, features].
        ptr: bounds of the clouds, as [0, n0, n0 + n1, ...].
        random_start: begin at a random point instead of the first.
    """
    chosen: List[torch.Tensor] = []
    for begin, end in zip(ptr[:-1], ptr[1:]):
        cloud = src[begin:end]
        index = (
            torch.randint(end - begin, (1,), device=src.device) if random_start else torch.zeros(1, dtype=torch.int64, device=src.device)
        )
        distance = torch.full((end - begin,), math.inf, dtype=src.dtype, device=src.device)
        for _ in range(math.ceil(ratio * (end - begin))):
            chosen.append(index + begin)
            distance = torch.minimum(distance, (cloud - cloud.index_select(0, index)).square().sum(1))
            index = distance.argmax().reshape(1)
    return torch.cat(chosen)


def nearest(
    x: torch.Tensor, y: torch.Tensor, batch_x: Optional[torch.Tensor] = None, batch_y: Optional[torch.Tensor] = None
) -> torch.Tensor:
    """For each point of x [n, f] the index of the nearest of y [m, f], of the same batch where batches are given."""
    distances = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
    if batch_x is not None and batch_y is not None:
        distances = distances.masked_fill(batch_x.unsqueeze(1) != batch_y.unsqueeze(0), math.inf)
    return distances.argmin(1)
