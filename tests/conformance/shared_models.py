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


class Regression(nn.Module):
    """A linear layer and its loss."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return F.mse_loss(self.layer(x), torch.zeros(len(x), 1))


def trained(optimizer_of, changes=()):
    """Weights after one call for each change, which is applied to the optimizer first."""
    torch.manual_seed(0)
    model = Regression()
    optimizer = optimizer_of(model.parameters())
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    x = torch.randn(4, 3)
    executor(x)
    for change in changes:
        change(optimizer)
        executor.setOptimizer(optimizer)
        executor(x)
    return model.state_dict()["layer.weight"].clone(), executor, optimizer


def set_group(name, value):
    """A change of the optimizer's first group."""
    return lambda optimizer: optimizer.param_groups[0].update({name: value})


def values_on_device(make):
    """What a weight is updated with, by PopTorch's names."""
    _, _, optimizer = trained(make)
    values = optimizer.state_dict()["ipu_param"]
    return {
        key.split("___")[0]: value.item() for key, value in values.items() if key == "lossScaling_FLOAT" or key.endswith("layer.weight")
    }
