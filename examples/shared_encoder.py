"""Two training models with a shared part: an encoder learns from two tasks by turns, and each model has a head of its own."""

from __future__ import annotations

import copy
from typing import Dict, List

import torch
from torch import nn

import poptorch

ROUNDS, STEPS, RATE = 3, 4, 0.05


class Task(nn.Module):
    """The encoder that both tasks share, and the head of this one."""

    def __init__(self, encoder: nn.Module, outputs: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(16, outputs)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy for class numbers, mean squared error for values."""
        out = self.head(self.encoder(x))
        is_classes = target.dim() == 1
        loss = nn.functional.cross_entropy(out, target) if is_classes else (out - target).square().mean()
        return poptorch.identity_loss(loss, reduction="none")


class Both(nn.Module):
    """Two tasks over one encoder."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.tasks = nn.ModuleDict({"classification": Task(encoder, 3), "regression": Task(encoder, 2)})


def data() -> Dict[str, List[torch.Tensor]]:
    """Inputs and targets of each task."""
    x = torch.randn(20, 6)
    return {"classification": [x, torch.randint(3, (20,))], "regression": [x, torch.randn(20, 2)]}


def train(both: Both, batches: Dict[str, List[torch.Tensor]]) -> List[float]:
    """Each round attaches one task's model, which uploads what the other has learned, and detaches it, which downloads."""
    options = poptorch.Options().connectionType(poptorch.ConnectionType.OnDemand)
    models = {
        name: poptorch.trainingModel(task, options, poptorch.optim.SGD(task.parameters(), lr=RATE, use_combined_accum=False))
        for name, task in both.tasks.items()
    }
    losses = []
    for _ in range(ROUNDS):
        for name, model in models.items():
            if model.isCompiled():
                model.attachToDevice()
            losses += [float(model(*batches[name])) for _ in range(STEPS)]
            model.detachFromDevice()
    return losses


def train_plainly(both: Both, batches: Dict[str, List[torch.Tensor]]) -> List[float]:
    """The same without PopTorch."""
    losses = []
    for _ in range(ROUNDS):
        for name, task in both.tasks.items():
            optimizer = torch.optim.SGD(task.parameters(), lr=RATE)
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss = task(*batches[name])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return losses


def main() -> None:
    """The same losses and weights, to float32's rounding."""
    torch.manual_seed(0)
    plain, batches = Both(), data()
    both = copy.deepcopy(plain)
    expected, losses = train_plainly(plain, batches), train(both, batches)
    print(f"classification {losses[0]:.4f} -> {losses[-STEPS - 1]:.4f}, regression {losses[STEPS]:.4f} -> {losses[-1]:.4f}")
    assert torch.allclose(torch.tensor(losses), torch.tensor(expected), atol=1e-5), "losses differ from plain PyTorch"
    for name, theirs in plain.state_dict().items():
        assert torch.allclose(both.state_dict()[name], theirs, atol=1e-5), f"{name} differs from plain PyTorch"


if __name__ == "__main__":
    main()
