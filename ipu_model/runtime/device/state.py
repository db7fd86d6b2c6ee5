"""What lives on the device between calls, and how it gets there and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

import torch

from ..capture import narrow_dtype
from ..errors import Error
from ..gradients.exchange import GradientExchange
from ..gradients.reduction import ReplicaGroups
from .random import DeviceRandom
from .rules import OptimizerState
from .settings import RunSettings


@dataclass
class DeviceState:
    """What lives on the device between calls.

    `buffers` has one list for each replica, since each updates its own running statistics. Parameters are equal on all replicas and kept
    once, but for those in `groups` (by number): these have one slice for each group of replicas along an extra first dimension.
    """

    parameters: List[torch.Tensor]
    buffers: List[List[torch.Tensor]]
    random: DeviceRandom
    optimizer: OptimizerState = field(default_factory=OptimizerState)
    groups: Dict[int, ReplicaGroups] = field(default_factory=dict)
    gradient_groups: Dict[int, ReplicaGroups] = field(default_factory=dict)  # the same by number of the gradient
    first_replica: int = 0  # number of this instance's first replica among those of all instances
    exchange: Optional[GradientExchange] = None  # with the instances that train together, None for one

    def parameters_of(self, replica: int) -> List[torch.Tensor]:
        """The parameters as a replica sees them."""
        if not self.groups:
            return self.parameters
        return [
            value[self.groups[index].group_of(replica)] if index in self.groups else value for index, value in enumerate(self.parameters)
        ]


class DeviceMemory:
    """The device that a model has to itself: its state from `attach` to `detach`, and its random numbers beyond.

    `is_stale` says that the device has trained since the host's copies were made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_stale = False
        self._state: Optional[DeviceState] = None
        self._random_state: Optional[List[int]] = None

    @property
    def is_attached(self) -> bool:
        """Whether the device holds the model's state."""
        return self._state is not None

    @property
    def state(self) -> DeviceState:
        """What is on the device, while it is attached."""
        assert self._state is not None, "nothing is attached"
        return self._state

    def take(self, value: Any) -> Any:
        """A host's tensor on the device and in the device's type; what is not a tensor stays as it is."""
        return narrow_dtype(value.detach()).to(self.device).contiguous() if isinstance(value, torch.Tensor) else value

    def attach(
        self,
        settings: RunSettings,
        names: Sequence[str],
        trainable: Sequence[str],
        groups: Mapping[str, ReplicaGroups],
        exchange: Optional[GradientExchange],
    ) -> None:
        """Make room for a model's parameters `names`, of which some are trainable and some are kept by groups of replicas.

        Raises:
            Error: a model's state is there already.
        """
        if self.is_attached:
            raise Error("The model is already attached to a device.")
        replicas = settings.layout.replication_factor
        seed = torch.initial_seed() % 2**32 if settings.seed is None else settings.seed
        self._state = DeviceState(
            [],
            [[] for _ in range(replicas)],
            DeviceRandom(seed, self.device),
            groups={names.index(name): group for name, group in groups.items()},
            gradient_groups={index: groups[name] for index, name in enumerate(trainable) if name in groups},
            first_replica=settings.process * replicas,
            exchange=exchange,
        )
        if self._random_state is not None:
            self._state.random.state = self._random_state

    def detach(self) -> None:
        """Let go of everything but the random numbers' state."""
        self._random_state = self.state.random.state
        self._state = None
        self.is_stale = False

    def upload(self, parameters: Iterable[torch.Tensor], buffers: Iterable[torch.Tensor]) -> None:
        """Copy the host's tensors over whatever the device has."""
        self.is_stale = False
        taken = [self.take(buffer) for buffer in buffers]
        self.state.parameters = [self.take(parameter).clone() for parameter in parameters]
        self.state.buffers = [[buffer.clone() for buffer in taken] for _ in self.state.buffers]

    def upload_buffer(self, index: int, buffer: torch.Tensor) -> None:
        """Copy one buffer to all replicas."""
        for buffers in self.state.buffers:
            buffers[index].copy_(buffer)

    def download(self, parameters: Iterable[torch.Tensor], buffers: Iterable[torch.Tensor]) -> None:
        """Copy the parameters, and the first replica's buffers, into the host's tensors."""
        self.is_stale = False  # first: looking at a host tensor downloads a stale one
        with torch.no_grad():
            for host, device in zip(parameters, self.state.parameters):
                host.data.copy_(device)
            for host, device in zip(buffers, self.state.buffers[0]):
                host.data.copy_(device)

    @property
    def random_state(self) -> Optional[List[int]]:
        """`[seed, counter]` of the device's random numbers; None before the device was attached."""
        return self._random_state if self._state is None else self._state.random.state

    @random_state.setter
    def random_state(self, state: Optional[Sequence[int]]) -> None:
        self._random_state = None if state is None else [int(value) for value in state]
        if self._state is not None and state is not None:
            self._state.random.state = state
