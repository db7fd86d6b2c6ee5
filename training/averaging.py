"""Averages of the weights over the ends of epochs."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch

from config import AveragingConfig

Weights = Dict[str, torch.Tensor]


class WeightAverage:
    """Exponential average V <- decay V + (1 - decay) W, starting at the first W, or mean of the last epochs; kept in float32."""

    def __init__(self, config: AveragingConfig, epochs: int) -> None:
        self._config = config
        self._first_epoch = epochs - config.averaging_last if config.averaging == "mean" else 0
        self._count = 0
        self._last_epoch: Optional[int] = None
        self._average: Optional[Weights] = None

    @property
    def weights(self) -> Optional[Weights]:
        """The average, None before the first epoch that counts."""
        return self._average

    def update(self, weights: Weights, epoch: int) -> None:
        """Take the weights at the end of an epoch, counted from 1; epochs in between that are not given count in the decay."""
        if self._config.averaging == "none" or epoch <= self._first_epoch:
            return
        self._count += 1
        passed = 1 if self._last_epoch is None else epoch - self._last_epoch
        self._last_epoch = epoch
        if self._average is None:
            self._average = {name: _as_float(value).clone() for name, value in weights.items()}
            return
        keep = self._config.averaging_decay**passed if self._config.averaging == "exponential" else 1 - 1 / self._count
        for name, value in weights.items():
            if value.is_floating_point():
                self._average[name].mul_(keep).add_(_as_float(value), alpha=1 - keep)
            else:
                self._average[name] = value.clone()

    def state_dict(self) -> Dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self._count, "last_epoch": self._last_epoch, "average": self._average}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._count, self._average = state["count"], state["average"]
        self._last_epoch = state.get("last_epoch")  # which older checkpoints lack: their runs averaged at every end of an epoch


def _as_float(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value
