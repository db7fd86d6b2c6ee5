"""The operation behind `poptorch.ipu_print_tensor`: prints to stderr whenever the graph runs it."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, Tuple

import numpy as np
import torch

from ..operators import define_operator

_FLOATS: Dict[str, Callable[[int], Callable[[float], str]]] = {
    "fixed": lambda digits: lambda value: f"{value:.{digits}f}",
    "scientific": lambda digits: lambda value: f"{value:.{digits}e}",
    "none": lambda digits: lambda value: str(value),
}


def _print(x: torch.Tensor, title: str, *settings: Any) -> torch.Tensor:
    if not x.is_meta:
        sys.stderr.write(f"{title}: {format_tensor(x, *settings)}\n" if title else f"{format_tensor(x, *settings)}\n")
    return x.clone()


define_operator(
    "print_tensor(Tensor x, str title, int threshold, int edge_items, int max_line_width, int digits, str float_format, "
    "str separator, str open_bracket, str close_bracket) -> Tensor",
    _print,
)


def format_tensor(
    x: torch.Tensor, threshold: int, edge_items: int, max_line_width: int, digits: int, float_format: str, *marks: str
) -> str:
    """A tensor as text; `marks` are separator, opening and closing bracket."""
    separator, opening, closing = marks
    formatter: Any = {"float_kind": _FLOATS[float_format](digits)} if float_format in _FLOATS else None
    text = np.array2string(
        x.detach().to("cpu", torch.float32 if x.dtype == torch.float16 else x.dtype).numpy(),
        threshold=threshold, edgeitems=edge_items, max_line_width=max_line_width, precision=digits, separator=separator,
        formatter=formatter,
    )  # fmt: skip
    return text.translate(str.maketrans({"[": opening, "]": closing}))


class Printed(torch.autograd.Function):
    """The tensor itself; prints it, and its gradient under the title with `_gradient` behind it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, title: str, prints_gradient: bool, settings: Tuple[Any, ...]) -> torch.Tensor:
        """Print the value."""
        ctx.title, ctx.prints_gradient, ctx.settings = title, prints_gradient, settings
        return torch.ops.ipu_model.print_tensor(x, title, *settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Print the gradient."""
        gradient = gradients[0]
        if ctx.prints_gradient:
            gradient = torch.ops.ipu_model.print_tensor(gradient, f"{ctx.title}_gradient", *ctx.settings)
        return gradient, None, None, None
