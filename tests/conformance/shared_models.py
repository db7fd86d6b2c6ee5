"""Models and options that the tests of several sections share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import poptorch


class Model(nn.Module):
    """A linear layer; with a target, its output and the loss."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, y=None):
        out = self.layer(x)
        return out if y is None else (out, F.mse_loss(out, y))


def data(batch=4):
    """Inputs and targets of Model."""
    return torch.randn(batch, 3), torch.randn(batch, 2)


def options(iterations=1, accumulation=1, replicas=1, mode=None, period=None):
    """Options of a call."""
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    if mode is not None:
        chosen.outputMode(mode, period)
    return chosen


def run_function(function, *inputs, options=None, training=False):
    """Results of a function as the forward of a model."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, *values):
            return function(*values)

    wrap = poptorch.trainingModel if training else poptorch.inferenceModel
    return wrap(Model(), options)(*inputs)
