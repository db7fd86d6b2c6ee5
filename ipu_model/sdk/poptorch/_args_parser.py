"""What binds arguments to forward's parameters, under the name that libraries built on PopTorch import."""

from __future__ import annotations

from typing import Any

import torch

from ._executor.arguments import ForwardSignature


class ArgsParser(ForwardSignature):
    """The parameters of a model's forward, or of a callable."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.forward if isinstance(model, torch.nn.Module) else model)
