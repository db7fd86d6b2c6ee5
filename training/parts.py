"""What training is given: programs that somebody else has built. A test hands in its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn
from typing_extensions import Protocol

Batch = Tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # images, labels, which of them are real


class Executor(Protocol):
    """What every wrapped model can do."""

    def isCompiled(self) -> bool:
        """Whether it has been compiled or called."""
        ...

    def isAttachedToDevice(self) -> bool:
        """Whether it holds the device."""
        ...

    def attachToDevice(self) -> None:
        """Take the device, with weights and all state."""
        ...

    def detachFromDevice(self) -> None:
        """Give the device to another model, and keep all state."""
        ...


class TrainingExecutor(Executor, Protocol):
    """A wrapped task: a call trains, and returns sums over its micro batches."""

    @property
    def rng_state(self) -> Optional[List[int]]:
        """The device's random numbers, None before it has any."""
        ...

    @rng_state.setter
    def rng_state(self, state: List[int]) -> None: ...

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Loss and hits [replicas of this instance], each summed over the micro batches of a replica."""
        ...

    def compile(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Compile for inputs of these shapes."""
        ...

    def setOptimizer(self, optimizer: Any) -> None:
        """Take over changed hyperparameters."""
        ...

    def copyWeightsToHost(self) -> None:
        """Bring the network on the host up to date."""
        ...


class InferenceExecutor(Executor, Protocol):
    """A wrapped classifier."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes]."""
        ...

    def compile(self, images: torch.Tensor) -> None:
        """Compile for inputs of this shape."""
        ...

    def copyWeightsToDevice(self) -> None:
        """Bring the device up to date with the network on the host."""
        ...


class Optimizer(Protocol):
    """Hyperparameters and state of the weight update."""

    param_groups: List[Any]
    loss_scaling: float

    def state_dict(self) -> Any:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on from a checkpoint."""
        ...


class Batches(Protocol):
    """A loader: each iteration is a pass over its images."""

    @property
    def classes(self) -> Sequence[str]:
        """Names in the order of the labels."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...


class Order(Protocol):
    """Where the next pass of the training batches begins."""

    epoch: int
    first_call: int

    @property
    def calls_per_epoch(self) -> int:
        """Calls of the model in an epoch."""
        ...


@dataclass(frozen=True)
class TrainingProgram:
    """A model that trains, and what it is fed.

    Attributes:
        network: the module inside the executor whose weights are kept.
        order: says where the next pass of `batches` begins.
    """

    executor: TrainingExecutor
    network: nn.Module
    optimizer: Optimizer
    batches: Batches
    order: Order


@dataclass(frozen=True)
class ValidationProgram:
    """A model that is scored, with a network of its own, and its images."""

    executor: InferenceExecutor
    network: nn.Module
    batches: Batches
