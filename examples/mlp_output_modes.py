"""An MLP trained under each output mode, and the same training in plain PyTorch."""

from __future__ import annotations

import copy
from typing import List, Optional, Tuple

import torch
from torch import nn

import poptorch

ITERATIONS, ACCUMULATION, REPLICAS, MICRO_BATCH = 4, 3, 2, 5


class Classifier(nn.Module):
    """Logits, and with labels the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Logits and mean cross-entropy of a micro batch."""
        logits = self.layers(x)
        return logits, self.loss(logits, labels)


def train_plainly(model: Classifier, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of every micro batch, in order, [ITERATIONS, ACCUMULATION, REPLICAS]."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: List[torch.Tensor] = []
    for rows, targets in zip(x.chunk(ITERATIONS), labels.chunk(ITERATIONS)):
        optimizer.zero_grad()
        for part, target in zip(rows.chunk(ACCUMULATION * REPLICAS), targets.chunk(ACCUMULATION * REPLICAS)):
            _, loss = model(part, target)
            (loss / (ACCUMULATION * REPLICAS)).backward()
            losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses).view(ITERATIONS, ACCUMULATION, REPLICAS)


def main() -> None:
    """Train under each mode, and compare what comes back."""
    torch.manual_seed(0)
    start = Classifier()
    samples = ITERATIONS * ACCUMULATION * REPLICAS * MICRO_BATCH
    x, labels = torch.randn(samples, 8), torch.randint(0, 3, (samples,))
    reference = copy.deepcopy(start)
    losses = train_plainly(reference, x, labels)
    expected = {
        poptorch.OutputMode.All: losses.flatten(),
        poptorch.OutputMode.Final: losses[-1, -1],
        poptorch.OutputMode.Sum: losses.sum((0, 1)),
        poptorch.OutputMode.EveryN: losses[1::2].flatten(),
    }
    for mode, values in expected.items():
        model = copy.deepcopy(start)
        period: Optional[int] = 2 if mode == poptorch.OutputMode.EveryN else None
        options = poptorch.Options().deviceIterations(ITERATIONS).replicationFactor(REPLICAS).outputMode(mode, period)
        options.Training.gradientAccumulation(ACCUMULATION)
        training = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
        logits, loss = training(x, labels)
        torch.testing.assert_close(loss, values)
        torch.testing.assert_close(dict(model.state_dict()), dict(reference.state_dict()))
        print(f"OutputMode.{mode.name:6}  logits {tuple(logits.shape)}  losses {loss.numel()}, mean {loss.mean():.4f}  as plain PyTorch")


if __name__ == "__main__":
    main()
