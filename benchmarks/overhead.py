"""A step so small that only overhead is left: a three-layer MLP with batch 16, on the IPU Model and in a hand-written PyTorch loop.

`python -m benchmarks.overhead`: both take turns in one process, medians are compared.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any, Callable, Dict, Tuple

import torch
from torch import nn

import ipu_model  # noqa: F401
import poptorch
from benchmarks.timing import measure_in_turn

BATCH_SIZE = 16


class Task(nn.Module):
    """The MLP with its loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of a micro batch."""
        return nn.functional.cross_entropy(self.layers(x), labels)


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64, help="features of each layer")
    parser.add_argument("--device-iterations", type=int, default=1, help="weight updates in one call")
    parser.add_argument("--rounds", type=int, default=41)
    arguments = parser.parse_args()
    simulated, written = build_steps(arguments.width, arguments.device_iterations)
    medians = measure_in_turn({"IPU Model": simulated, "hand-written loop": written}, arguments.rounds)
    for name, seconds in medians.items():
        print(f"{name:18} {1e6 * seconds / _CALLS / arguments.device_iterations:8.0f} microseconds an update")
    ratio = medians["IPU Model"] / medians["hand-written loop"]
    print(f"ratio {ratio:.3f}  (torch {torch.__version__}, {torch.get_num_threads()} threads)")


_CALLS = 50  # in one measurement


def build_steps(width: int, device_iterations: int) -> Tuple[Callable[[], object], Callable[[], object]]:
    """The same weight updates twice: by the IPU Model, and by a loop over micro batches with torch.optim.SGD."""
    torch.manual_seed(0)
    task = Task(width)
    reference = copy.deepcopy(task)
    x, labels = torch.randn(BATCH_SIZE * device_iterations, width), torch.randint(0, 10, (BATCH_SIZE * device_iterations,))
    settings: Dict[str, Any] = dict(lr=1e-3, momentum=0.9)
    options = poptorch.Options().deviceIterations(device_iterations)
    model = poptorch.trainingModel(task, options, poptorch.optim.SGD(task.parameters(), **settings))
    optimizer = torch.optim.SGD(reference.parameters(), **settings)

    def simulated() -> None:
        for _ in range(_CALLS):
            model(x, labels)

    def written() -> None:
        for _ in range(_CALLS):
            for rows, targets in zip(x.chunk(device_iterations), labels.chunk(device_iterations)):
                optimizer.zero_grad()
                loss = reference(rows, targets)
                loss.backward()
                optimizer.step()
            loss.item()

    return simulated, written


if __name__ == "__main__":
    main()
