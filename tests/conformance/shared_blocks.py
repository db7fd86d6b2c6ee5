"""A model of three layers, its blocks, and one call that trains it."""

from __future__ import annotations

import torch
from torch import nn

import poptorch


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x):
        return poptorch.identity_loss(self.c(self.b(self.a(x))).sum(), reduction="none")


def blocks(model, ids=(0, 1, 2)):
    for name, ipu in zip("abc", ids):
        poptorch.BeginBlock(getattr(model, name), name, ipu_id=ipu)
    return model


def run(model, accumulation=5, strategy=None, is_rounded=True):
    options = poptorch.Options().autoRoundNumIPUs(is_rounded)
    options.Training.gradientAccumulation(accumulation)
    if strategy is not None:
        options.setExecutionStrategy(strategy)
    return poptorch.trainingModel(model, options)(torch.ones(accumulation, 2))
