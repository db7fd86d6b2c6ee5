"""Weight updates on the device against torch.optim and timm, over several steps of a real model."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.optim import RMSpropTF
from torch import nn
from torch.nn import functional as F

import poptorch


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x, y):
        return F.mse_loss(self.layers(x), y)


def train_both(ours_optimizer, theirs_optimizer, generator, steps=5, **options_values):
    """Parameters after some steps: on the IPU Model, and in a plain loop over the same micro batches."""
    torch.manual_seed(0)
    mine, theirs = Regression(), None
    theirs = copy.deepcopy(mine)
    options = poptorch.Options().replicationFactor(options_values.get("replicas", 1))
    options.deviceIterations(options_values.get("iterations", 1))
    options.Training.gradientAccumulation(options_values.get("accumulation", 1))
    chunks = options.replication_factor * options.Training.gradient_accumulation
    optimizer = ours_optimizer(mine.parameters())
    model = poptorch.trainingModel(mine, options, optimizer)
    reference = theirs_optimizer(theirs.parameters())
    for _ in range(steps):
        x = torch.randn(6 * chunks * options.device_iterations, 4, generator=generator)
        y = torch.randn(len(x), 3, generator=generator)
        model(x, y)
        for inputs, targets in zip(x.chunk(options.device_iterations), y.chunk(options.device_iterations)):
            reference.zero_grad()
            for part, target in zip(inputs.chunk(chunks), targets.chunk(chunks)):
                (theirs(part, target) / chunks).backward()
            reference.step()
    model.copyWeightsToHost()
    return list(mine.state_dict().values()), list(theirs.state_dict().values())


PAIRS = {
    "sgd": (lambda p: poptorch.optim.SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "combined": (
        lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, use_combined_accum=True, velocity_scaling=8.0),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    ),
    "nesterov": (
        lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "loss scaling": (
        lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, loss_scaling=128.0),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    ),
    "adam": (lambda p: poptorch.optim.Adam(p, lr=0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    "adamw": (lambda p: poptorch.optim.AdamW(p, lr=0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
    "rmsprop": (
        lambda p: poptorch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    ),
    "rmsprop tf": (
        lambda p: poptorch.optim.RMSprop(p, lr=0.01, alpha=0.95, eps=1e-3, momentum=0.9, weight_decay=0.1, use_tf_variant=True),
        lambda p: RMSpropTF(p, lr=0.01, alpha=0.95, eps=1e-3, momentum=0.9, weight_decay=0.1),
    ),
    "torch's own": (lambda p: torch.optim.AdamW(p, lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_updates_are_those_of_the_reference(name, generator):
    ours, theirs = train_both(*PAIRS[name], generator)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)  # the same float32 sums in another order


@pytest.mark.parametrize(
    "shape", [dict(replicas=2), dict(accumulation=3), dict(iterations=2), dict(replicas=2, accumulation=2, iterations=2)]
)
def test_replicas_and_accumulation_are_one_larger_batch(shape, generator):
    ours, theirs = train_both(*PAIRS["momentum"], generator, **shape)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_dampening_holds_from_the_first_step(generator):
    """PopTorch: v = (1 - d) g at once, also without momentum; so d = 0.5 without momentum is half the learning rate."""
    ours, theirs = train_both(lambda p: poptorch.optim.SGD(p, lr=0.2, dampening=0.5), PAIRS["sgd"][1], generator)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_gradients_are_clipped_to_a_global_norm(generator):
    def clipped(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        step = optimizer.step

        def clip_and_step():
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.1)
            return step()

        optimizer.step = clip_and_step
        return optimizer

    ours, theirs = train_both(lambda p: poptorch.optim.SGD(p, lr=0.5, max_grad_norm=0.1), clipped, generator)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_lamb_steps_by_the_trust_ratio():
    """One step in float64 by the equation: u = m / (sqrt(v) + eps) + wd w with both hats, w <- w - lr min(|w|, cap) / |u| u."""
    w, g = torch.tensor([3.0, 4.0]), torch.tensor([0.1, -0.2])
    parameter = torch.nn.Parameter(w.clone())
    parameter.grad = g.clone()
    poptorch.optim.LAMB([parameter], lr=0.1, weight_decay=0.01).step()
    u = g.double() / (g.double().abs() + 1e-8) + 0.01 * w.double()  # at step 1 the hats give m = g, v = g^2
    expected = w.double() - 0.1 * w.double().norm() / u.norm() * u
    torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=1e-6)
