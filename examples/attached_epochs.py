"""A training strategy as frameworks have it: each epoch attaches the training model, then the validation model, one at a time."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Tuple

import torch
from torch import nn

import poptorch

EPOCHS, BATCH = 3, 8


class Classifier(nn.Module):
    """A framework's module: what a step does depends on its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> Any:
        """In training the loss, otherwise the number of right answers."""
        out = self.layers(x)
        if self.training:
            return nn.functional.cross_entropy(out, target)
        return (out.argmax(1) == target).sum()


class Strategy:
    """Runs one epoch after another; owns the two models and says which of them has the device."""

    def __init__(self, module: Classifier, options: poptorch.Options, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        self.models: Dict[str, Any] = {
            "training": poptorch.trainingModel(module, options, optimizer),
            "validation": poptorch.inferenceModel(module, options),
        }

    def run(self, stage: str, batches: Any) -> List[float]:
        """One epoch of a stage: results of all batches."""
        model = self.models[stage]
        model.train(stage == "training")  # what the first call captures
        if model.isCompiled():
            model.attachToDevice()
        results = [float(model(*batch)) for batch in batches]
        model.detachFromDevice()
        return results

    def fit(self, batches: Any) -> List[Tuple[float, float]]:
        """Mean loss and right answers of each epoch."""
        history = []
        for _ in range(EPOCHS):
            losses = self.run("training", batches)
            right = self.run("validation", batches)
            history.append((sum(losses) / len(losses), sum(right)))
            self.scheduler.step()
            self.models["training"].setOptimizer(self.optimizer)
        return history


def fit_plainly(module: Classifier, batches: Any) -> List[Tuple[float, float]]:
    """The same without PopTorch."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    history = []
    for _ in range(EPOCHS):
        module.train()
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = module(*batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        module.eval()
        with torch.no_grad():
            right = sum(float(module(*batch)) for batch in batches)
        history.append((sum(losses) / len(losses), right))
        scheduler.step()
    return history


def main() -> None:
    """The same losses, right answers and weights, to float32's rounding."""
    torch.manual_seed(0)
    x = torch.randn(40, 10)
    dataset = torch.utils.data.TensorDataset(x, x[:, :4].argmax(1))
    plain = Classifier()
    module = copy.deepcopy(plain)
    options = poptorch.Options().connectionType(poptorch.ConnectionType.OnDemand)
    loader = poptorch.DataLoader(options, dataset, batch_size=BATCH)
    strategy = Strategy(module, options, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9))
    history = strategy.fit(loader)
    expected = fit_plainly(plain, list(loader))
    for epoch, ((loss, right), (plain_loss, plain_right)) in enumerate(zip(history, expected)):
        print(f"epoch {epoch}: loss {loss:.4f} (plain {plain_loss:.4f}), {right:.0f} of {len(dataset)} right")
        assert abs(loss - plain_loss) < 1e-4 and right == plain_right, "an epoch differs from plain PyTorch"
    state = module.state_dict()
    assert all(torch.allclose(state[name], value, atol=1e-4) for name, value in plain.state_dict().items()), "weights differ"


if __name__ == "__main__":
    main()
