"""A transformer block in half precision with stochastic rounding and replicated tensor sharding, beside float32 in plain PyTorch."""

from __future__ import annotations

import copy
from typing import Tuple

import torch
from torch import nn

import poptorch

REPLICAS, STEPS, TOKENS, WIDTH = 2, 30, 6, 32


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm, trained to reproduce its input shifted by one token."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention_in, self.attention_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared error of a micro batch, in float32."""
        query, key, value = self.attention_in(self.first(x)).chunk(3, dim=-1)
        scores = (query @ key.transpose(1, 2) / WIDTH**0.5).softmax(-1)
        x = x + self.attention_out(scores @ value)
        x = x + self.feed_forward(self.second(x))
        return poptorch.identity_loss((x.float() - target.float()).square().mean(), reduction="none")


def train(model: Block, x: torch.Tensor, target: torch.Tensor, is_half: bool) -> Tuple[float, float]:
    """First and last loss through PopTorch."""
    options = poptorch.Options().replicationFactor(REPLICAS).randomSeed(1).outputMode(poptorch.OutputMode.All)
    options.Precision.enableStochasticRounding(is_half)
    sharded = poptorch.TensorLocationSettings().useOnChipStorage(True).useReplicatedTensorSharding(True)
    options.TensorLocations.setOptimizerLocation(sharded)
    optimizer = poptorch.optim.AdamW(
        model.parameters(), lr=3e-3, loss_scaling=1024.0 if is_half else 1.0, accum_type=torch.float16 if is_half else torch.float32
    )
    training = poptorch.trainingModel(model, options, optimizer)
    losses = [float(training(x, target).mean()) for _ in range(STEPS)]
    training.detachFromDevice()
    return losses[0], losses[-1]


def train_plainly(model: Block, x: torch.Tensor, target: torch.Tensor) -> Tuple[float, float]:
    """First and last loss in float32 without PopTorch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(x, target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses[0], losses[-1]


def main() -> None:
    """Float32 must agree closely; half must learn as much, within its rounding."""
    torch.manual_seed(0)
    start = Block()
    x = torch.randn(8, TOKENS, WIDTH)
    target = x.roll(1, dims=1)
    expected = train_plainly(copy.deepcopy(start), x, target)
    single = train(copy.deepcopy(start), x, target, is_half=False)
    half_model = copy.deepcopy(start).half()
    half = train(half_model, x.half(), target.half(), is_half=True)
    for name, (first, last) in (("plain float32", expected), ("poptorch float32", single), ("poptorch float16", half)):
        print(f"{name:17} loss {first:.4f} -> {last:.4f}")
    assert abs(single[0] - expected[0]) < 1e-5 and abs(single[1] - expected[1]) < 1e-3, "float32 differs from plain PyTorch"
    # Half has 11 significant bits: losses agree to a few parts in a thousand at the start, and training reaches the same level.
    assert abs(half[0] - expected[0]) < 5e-3 * expected[0] and half[1] < 1.15 * expected[1] + 0.01, "half does not learn as float32 does"
    assert all(parameter.dtype == torch.float16 for parameter in half_model.parameters())


if __name__ == "__main__":
    main()
