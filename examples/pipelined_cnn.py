"""A convolutional network in four pipeline stages and two replicas, and the same training in plain PyTorch."""

from __future__ import annotations

import copy

import torch
from torch import nn

import poptorch

REPLICAS, ACCUMULATION, MICRO_BATCH, STEPS = 2, 8, 2, 6
BATCH = REPLICAS * ACCUMULATION * MICRO_BATCH


class Network(nn.Module):
    """Four blocks, which become four stages, and the loss in the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.ReLU())
        self.top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of a micro batch."""
        return nn.functional.cross_entropy(self.top(self.late(self.middle(self.stem(images)))), labels)


def annotate(model: Network) -> Network:
    """One block for each stage."""
    for ipu, part in enumerate((model.stem, model.middle, model.late, model.top)):
        poptorch.BeginBlock(part, f"stage{ipu}", ipu_id=ipu)
    return model


def main() -> None:
    """Train both ways, compare losses and weights; then show what too shallow an accumulation is told."""
    torch.manual_seed(0)
    images, labels = torch.randn(STEPS, BATCH, 1, 12, 12), torch.randint(0, 4, (STEPS, BATCH))
    reference = Network()
    model = annotate(copy.deepcopy(reference))

    options = poptorch.Options().replicationFactor(REPLICAS).outputMode(poptorch.OutputMode.Sum)
    options.setExecutionStrategy(poptorch.PipelinedExecution(poptorch.AutoStage.AutoIncrement))
    options.Training.gradientAccumulation(ACCUMULATION)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, dampening=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    training = poptorch.trainingModel(model, options, optimizer)

    plain = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        loss = training(images[step], labels[step]).sum() / (REPLICAS * ACCUMULATION)
        optimizer.step()  # nothing on the host; torch's schedules expect it
        schedule.step()
        training.setOptimizer(optimizer)

        plain.param_groups[0]["lr"] = 0.05 * 0.5**step
        plain.zero_grad()
        expected = reference(images[step], labels[step])  # equal micro batches: the mean of means is the mean
        expected.backward()
        plain.step()
        torch.testing.assert_close(loss, expected.detach())
        print(f"step {step + 1}  loss {loss:.6f}  plain PyTorch {expected:.6f}")
    torch.testing.assert_close(dict(model.state_dict()), dict(reference.state_dict()))

    shallow = poptorch.Options()
    shallow.Training.gradientAccumulation(3)
    try:
        poptorch.trainingModel(annotate(Network()), shallow)(images[0, :6], labels[0, :6])
    except poptorch.Error as error:
        print(f"refused, as it should be: {error.message}")


if __name__ == "__main__":
    main()
