"""Scores of weights on the validation images, during a run."""

from __future__ import annotations

from typing import Dict, Mapping

import torch

from .evaluation import evaluate
from .parts import ValidationProgram

Weights = Mapping[str, torch.Tensor]


class Validator:
    """Scores weights on a program of its own, which holds the device only meanwhile."""

    def __init__(self, program: ValidationProgram) -> None:
        self._program = program

    def __call__(self, kinds: Mapping[str, Weights]) -> Dict[str, Dict[str, float]]:
        """Scores of each kind of weights: top1 and top5 in percent, loss, images, images_per_second."""
        scores = {kind: self._score(weights) for kind, weights in kinds.items()}
        if self._program.executor.isAttachedToDevice():
            self._program.executor.detachFromDevice()
        return scores

    def _score(self, weights: Weights) -> Dict[str, float]:
        self._program.network.load_state_dict(weights)
        if self._program.executor.isAttachedToDevice():
            self._program.executor.copyWeightsToDevice()
        return evaluate(self._program.executor, self._program.batches)
