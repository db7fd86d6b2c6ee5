"""Data that another process loads and rebatches: every sample arrives once an epoch, and training equals that on plain batches."""

from __future__ import annotations

import copy
from typing import Tuple

import torch
from torch import nn

import poptorch

SAMPLES, EPOCHS = 100, 2


class Samples(torch.utils.data.Dataset):
    """Points on a noisy plane."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tuple[torch.Tensor, torch.Tensor]:
        point = torch.tensor([index / SAMPLES, (index * 7 % SAMPLES) / SAMPLES])
        return point, (3 * point[:1] - 2 * point[1:]) + 0.01 * (index % 5)


class Regression(nn.Module):
    """A linear layer and its error."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean squared error of a micro batch."""
        return nn.functional.mse_loss(self.layer(x), y)


def main() -> None:
    """Train from the asynchronous loader, and from the samples in order."""
    torch.manual_seed(0)
    model = Regression()
    reference = copy.deepcopy(model)
    options = poptorch.Options().deviceIterations(5)
    options.Training.gradientAccumulation(2)
    loader = poptorch.DataLoader(
        options,
        Samples(),
        batch_size=2,
        num_workers=3,
        mode=poptorch.DataLoaderMode.AsyncRebatched,
        rebatched_worker_size=7,  # the workers' size divides nothing, and still no sample is lost
        async_options={"load_indefinitely": True, "buffer_size": 4},
    )
    training = poptorch.trainingModel(model, options, torch.optim.SGD(model.parameters(), lr=0.2))
    plain = torch.optim.SGD(reference.parameters(), lr=0.2)
    seen = 0
    for _ in range(EPOCHS):
        for x, y in loader:
            training(x, y)
            seen += len(x)
        for first in range(0, SAMPLES, 4):  # one update: 2 accumulated micro batches of 2
            pairs = [Samples()[index] for index in range(first, first + 4)]
            plain.zero_grad()
            reference(torch.stack([p for p, _ in pairs]), torch.stack([t for _, t in pairs])).backward()
            plain.step()
    loader.terminate()
    assert seen == EPOCHS * SAMPLES, f"{seen} samples arrived, expected {EPOCHS * SAMPLES}"
    torch.testing.assert_close(dict(model.state_dict()), dict(reference.state_dict()))
    weight = model.layer.weight.flatten().tolist()
    print(f"{seen} samples in {EPOCHS} epochs of {len(loader)} calls; weights {weight[0]:.4f} {weight[1]:.4f}, as plain PyTorch")


if __name__ == "__main__":
    main()
