"""Float32 values in a model of half weights."""

from __future__ import annotations

import contextlib
from typing import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def float32_buffers(module: nn.Module) -> Iterator[None]:
    """While inside, a conversion of the module (`half`, `to`, ...) leaves its own float32 buffers float32 where it would narrow them.

    Constants and running statistics are no weights: rounded to half, a mean of 123.675 becomes 123.6875, and a variance above 65,504
    becomes infinite. Another device, or float64, is taken on.
    """
    wide = {name: buffer for name, buffer in module.named_buffers(recurse=False) if buffer.dtype == torch.float32}
    yield
    for name, buffer in wide.items():
        converted = module.get_buffer(name)
        if torch.finfo(converted.dtype).bits < 32:
            setattr(module, name, buffer.to(converted.device))
