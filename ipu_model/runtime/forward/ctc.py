"""CTC loss: torch's own reads the lengths while it is being called, here they are tensors of the device."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple, Union

import torch

from ..errors import Error
from ..operators import define_operator


def _forward(probs: torch.Tensor, targets: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, blank: int) -> Tuple[Any, Any, Any]:
    values = probs.to(torch.float32)
    return values, *torch.ops.aten._ctc_loss(values, targets, inputs.tolist(), labels.tolist(), blank)


def _losses(probs: torch.Tensor, targets: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, blank: int) -> torch.Tensor:
    if probs.is_meta:
        return probs.new_empty(probs.shape[1])
    return _forward(probs, targets, inputs, labels, blank)[1].to(probs.dtype)


def _gradient(
    gradient: torch.Tensor, probs: torch.Tensor, targets: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, blank: int, zeroes: bool
) -> torch.Tensor:
    if probs.is_meta:
        return torch.empty_like(probs)
    values, losses, alpha = _forward(probs, targets, inputs, labels, blank)
    lengths = (inputs.tolist(), labels.tolist())
    backward = torch.ops.aten._ctc_loss_backward
    return backward(gradient.to(torch.float32), values, targets, *lengths, losses, alpha, blank, zeroes).to(probs.dtype)


define_operator("ctc_losses(Tensor probs, Tensor targets, Tensor inputs, Tensor labels, int blank) -> Tensor", _losses)
define_operator(
    "ctc_gradient(Tensor gradient, Tensor probs, Tensor targets, Tensor inputs, Tensor labels, int blank, bool zeroes) -> Tensor", _gradient
)


class _CtcLosses(torch.autograd.Function):
    """The loss of each sample, and its gradient with respect to the log-probabilities."""

    @staticmethod
    def forward(ctx: Any, probs: torch.Tensor, *rest: Any) -> torch.Tensor:
        """[N] losses."""
        *tensors, ctx.blank, ctx.zeroes = rest
        ctx.save_for_backward(probs, *tensors)
        return torch.ops.ipu_model.ctc_losses(probs, *tensors, ctx.blank)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """[T, N, C] gradient."""
        gradient = torch.ops.ipu_model.ctc_gradient(gradients[0].contiguous(), *ctx.saved_tensors, ctx.blank, ctx.zeroes)
        return (gradient, *[None] * 5)


_BY_NUMBER: Dict[Union[str, int], str] = {0: "none", 1: "mean", 2: "sum"}
Lengths = Union[torch.Tensor, Sequence[int], int]


def ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Union[str, int] = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """torch.nn.functional.ctc_loss with lengths as tensors of the device or as numbers; reductions "mean" and "sum".

    Args:
        log_probs: [T, N, C], or [T, C] for one sample.
        targets: [N, S], or the labels of all samples one after another.
        reduction: also by torch.ctc_loss's numbers, 1 and 2.

    Raises:
        Error: another reduction.
    """
    name = _BY_NUMBER.get(reduction, str(reduction))
    if name not in ("mean", "sum"):
        raise Error(f"ctc_loss with reduction={name!r} is not supported on the IPU: use 'mean' or 'sum'.")
    probs = log_probs if log_probs.dim() == 3 else log_probs.unsqueeze(1)
    inputs, labels = (_as_lengths(lengths, probs.device) for lengths in (input_lengths, target_lengths))
    losses = _CtcLosses.apply(probs, targets.to(torch.int64), inputs, labels, blank, zero_infinity)
    assert isinstance(losses, torch.Tensor)
    if zero_infinity:
        losses = torch.where(losses == float("inf"), torch.zeros_like(losses), losses)
    return losses.sum() if name == "sum" else (losses / labels.clamp(min=1).to(losses.dtype)).mean()


def _as_lengths(lengths: Lengths, device: torch.device) -> torch.Tensor:
    if isinstance(lengths, torch.Tensor):
        return lengths.reshape(-1).to(torch.int64)
    numbers: List[int] = [lengths] if isinstance(lengths, int) else [int(length) for length in lengths]
    return torch.tensor(numbers, dtype=torch.int64, device=device)
