"""The part of an executor that moves weights, buffers, optimizer state and random state between host and device."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Union

import torch

from ipu_model.runtime.capture import Captured, narrow_dtype
from ipu_model.runtime.device.loop import DeviceState
from ipu_model.runtime.device.random import DeviceRandom
from ipu_model.runtime.device.rules import Rule, complete_state
from ipu_model.runtime.errors import Error
from ipu_model.runtime.gradients.exchange import GradientExchange
from ipu_model.runtime.gradients.loss_scaling import LossScaler
from ipu_model.runtime.gradients.reduction import ReplicaGroups
from ipu_model.runtime.instances import join

from ..enums import ConnectionType
from ..options import Options
from . import optimizer_link as link


class DeviceWeights:
    """State that an executor keeps on its device, and when it is copied."""

    _options: Options
    _training: bool
    _user_model: torch.nn.Module
    _model: torch.nn.Module
    _optimizer: Any = None
    _device: torch.device
    _rule: Rule
    _scaler: LossScaler
    _trainable_names: List[str]

    def __init__(self) -> None:
        self._executable: Optional[Captured] = None
        self._state: Optional[DeviceState] = None
        self._is_attached = False
        self._is_host_stale = False
        self._rng_state: Optional[List[int]] = None
        self._groups_by_name: Dict[str, ReplicaGroups] = {}

    def _names_of_parameters(self) -> List[str]:
        return [name for name, _ in self._model.named_parameters()]

    def _names_of_buffers(self) -> List[str]:
        return [name for name, _ in self._model.named_buffers()]

    def _parameters_for_capture(self) -> Dict[str, torch.Tensor]:
        """Device tensors by name as one replica sees them."""
        tensors = {name: self._to_device(p.detach()) for name, p in self._model.named_parameters()}
        return {name: value[0] if name in self._groups_by_name else value for name, value in tensors.items()}

    def isAttachedToDevice(self) -> bool:
        """Whether the device holds the model's state."""
        return self._is_attached

    def attachToDevice(self) -> None:
        """Upload weights, buffers, optimizer state and random state."""
        self._need_compiled("attachToDevice")
        assert self._options.connection_type != ConnectionType.Never, "Trying to attach to an offline device"
        if self._is_attached:
            raise Error("The model is already attached to a device.")
        seed = self._options.random_seed if self._options.exists("random_seed") else torch.initial_seed() % 2**32
        names = self._names_of_parameters()
        self._trainable_indices = [names.index(name) for name in self._trainable_names]
        self._state = DeviceState(
            [],
            [],
            DeviceRandom(seed, self._device),
            groups={names.index(name): groups for name, groups in self._groups_by_name.items()},
            gradient_groups={i: self._groups_by_name[name] for i, name in enumerate(self._trainable_names) if name in self._groups_by_name},
        )
        self._meet_instances(self._state)
        if self._rng_state is not None:
            self._state.random.state = self._rng_state
        self._is_attached = True
        self._scaler = self._build_scaler()
        if self._training and self._optimizer is not None:
            self._rule = link.initial_rule(self)
        self.copyWeightsToDevice()
        self._complete_optimizer_state()

    def _complete_optimizer_state(self) -> None:
        if self._training and self._optimizer is not None and self._state is not None:
            weights = [self._state.parameters[index] for index in self._trainable_indices]
            complete_state(self._rule, self._trainable_names, weights, self._state.optimizer)

    def _meet_instances(self, state: DeviceState) -> None:
        """Where options.Distributed says that this is one of several processes."""
        assert self._executable is not None
        process, count = self._options.Distributed.processId, self._options.Distributed.numProcesses
        state.first_replica = process * self._options.replication_factor
        if self._training and count > 1:
            parameters = dict(self._model.named_parameters())
            shapes = [parameters[name].shape for name in self._trainable_names]
            captured = self._executable
            state.exchange = GradientExchange(captured.graph, captured.num_outputs, shapes, self._device, join(process, count))

    def _build_scaler(self) -> LossScaler:
        is_automatic = bool(self._options._Popart.options.get("automaticLossScalingSettings.enabled"))
        return LossScaler(getattr(self._optimizer, "loss_scaling", 1.0), is_automatic, self._device)

    def copyWeightsToDevice(self) -> None:
        """Upload the host's weights and buffers, over whatever the device has."""
        self._need_compiled("copyWeightsToDevice")
        if not self._is_attached:
            return
        assert self._state is not None
        self._is_host_stale = False
        self._state.parameters = [self._to_device(p).clone() for p in self._model.parameters()]
        self._state.buffers = [[self._to_device(b).clone() for b in self._model.buffers()] for _ in range(self._options.replication_factor)]

    def copyNamedBuffersToDevice(self) -> None:
        """Upload the buffers named in `Options.updatableNamedBuffers`, and nothing else."""
        wanted = self._options._Popart.options.get("updatableNamedBuffers")
        if not wanted:
            raise Error("copyNamedBuffersToDevice needs the names of the buffers: set Options.updatableNamedBuffers([...]).")
        self._need_compiled("copyNamedBuffersToDevice")
        if self._state is not None:
            for index, (name, buffer) in enumerate(self._model.named_buffers()):
                if name in wanted:
                    for buffers in self._state.buffers:
                        buffers[index].copy_(buffer)

    def copyWeightsToHost(self) -> None:
        """Download the device's weights, and replica 0's buffers, into the user's model."""
        self._need_compiled("copyWeightsToHost")
        if self._state is None:
            return
        self._is_host_stale = False  # first: looking at a host tensor downloads a stale one
        with torch.no_grad():
            for host, device in zip(self._model.parameters(), self._state.parameters):
                host.data.copy_(device)
            for host, device in zip(self._model.buffers(), self._state.buffers[0]):
                host.data.copy_(device)

    def copyWeightsToHostIfNeeded(self) -> bool:
        """Download if the device has trained since the last time; returns whether it did."""
        if not (self._is_attached and self._is_host_stale):
            return False
        self.copyWeightsToHost()
        return True

    def _follow_trainer(self) -> None:
        """An inference model gets the weights of the training model of the same module."""
        download: Union[Callable[[], bool], None] = getattr(self._user_model, "copyWeightsToHostIfNeeded", None)
        if download is not None and download():
            self.copyWeightsToDevice()

    def load_state_dict(self, state_dict: Dict[str, Any], strict: bool = True) -> Any:
        """Load into the user's model, and upload."""
        result = self._user_model.load_state_dict(state_dict, strict)
        if self._is_attached:
            self.copyWeightsToDevice()
        return result

    def detachFromDevice(self) -> None:
        """Download everything and let the device go."""
        self._need_compiled("detachFromDevice")
        if not self._is_attached:
            raise Error("Device is not attached: nothing to detach from.")
        self.copyWeightsToHostIfNeeded()
        assert self._state is not None
        self._rng_state = self._state.random.state
        if self._training and self._optimizer is not None:
            link.keep_state_on_host(self)
        self._is_attached = False
        self._state = None

    @property
    def rng_state(self) -> Optional[List[int]]:
        """`[seed, counter]` of the device's random numbers."""
        self._need_compiled("rng_state")
        return self._state.random.state if self._state is not None else self._rng_state

    @rng_state.setter
    def rng_state(self, state: List[int]) -> None:
        self._need_compiled("rng_state")
        self._rng_state = list(state)
        if self._state is not None:
            self._state.random.state = state

    def _to_device(self, value: Any) -> Any:
        return narrow_dtype(value.detach()).to(self._device).contiguous() if isinstance(value, torch.Tensor) else value

    def _need_compiled(self, name: str) -> None:
        if self._executable is None:
            raise Error(f"Model has not been compiled: call it, or compile(), before {name}.")
