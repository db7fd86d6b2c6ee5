"""The user's module on the host: its names, its tensors, and when they are copied to the device and back."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple

import torch

from ipu_model.runtime.device.state import DeviceMemory

from .wrapping import owner_of, unwrap, wrap


class CallableModel(torch.nn.Module):
    """A plain callable as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign,assignment]


class HostModule:
    """A module whose tensors a device has copies of.

    Attributes:
        runs: the module whose forward is captured.
        user: the user's own, which has the same parts.
        destroy: ends the model that trains it.
        downloads: how often the host's tensors have been brought up to date.
    """

    def __init__(
        self, runs: torch.nn.Module, user: torch.nn.Module, is_training: bool, memory: DeviceMemory, destroy: Callable[[], None]
    ) -> None:
        self.runs, self.user, self.is_training = runs, user, is_training
        self.destroy = destroy
        self.downloads = 0
        self._memory = memory
        self._trainer: Optional[HostModule] = None
        self._seen_downloads = 0

    # ---- names and tensors

    @property
    def parameters(self) -> Dict[str, torch.Tensor]:
        """By dotted name."""
        return dict(self.runs.named_parameters())

    @property
    def buffers(self) -> Dict[str, torch.Tensor]:
        """By dotted name."""
        return dict(self.runs.named_buffers())

    @property
    def shapes(self) -> Dict[str, Tuple[Tuple[int, ...], torch.dtype]]:
        """Shape and type of every parameter and buffer."""
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in {**self.parameters, **self.buffers}.items()}

    # ---- a training model owns the user's module

    def wrap(self) -> None:
        """From now on whoever looks at the user's module sees what the device has learned."""
        wrap(self.user, self)

    def unwrap(self) -> None:
        """Give the user's module back."""
        unwrap(self.user)

    # ---- an inference model follows a training model

    def follow(self, module: Any) -> None:
        """Take new weights from the training model that owns a module, if there is one."""
        self._trainer = owner_of(module)

    def follow_trainer_of(self, other: HostModule) -> None:
        """Take new weights from where another one takes them."""
        self._trainer = other._trainer

    def catch_up(self) -> None:
        """Upload where the host's weights have been brought up to date since the last upload, by whatever it was."""
        trainer = self._trainer
        if trainer is not None:
            trainer.download_if_stale()
            if trainer.downloads != self._seen_downloads:
                self.upload()

    # ---- copies

    def upload(self) -> None:
        """Copy parameters and buffers to the device, over whatever it has."""
        self._memory.upload(self.parameters.values(), self.buffers.values())
        if self._trainer is not None:
            self._seen_downloads = self._trainer.downloads

    def upload_buffers(self, wanted: Iterable[str]) -> None:
        """Copy some buffers to the device, and nothing else."""
        wanted = set(wanted)
        for index, (name, buffer) in enumerate(self.buffers.items()):
            if name in wanted:
                self._memory.upload_buffer(index, buffer)

    def download(self) -> None:
        """Copy what the device has into the module."""
        self._memory.download(self.parameters.values(), self.buffers.values())
        self.downloads += 1

    def download_if_stale(self) -> bool:
        """Download if the device has trained since the last time; returns whether it did."""
        if not self._memory.is_stale:
            return False
        self.download()
        return True

    def on_device(self, tensors: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Tensors as the device gets them."""
        return {name: self._memory.take(tensor) for name, tensor in tensors.items()}

    @property
    def trainable(self) -> Tuple[str, ...]:
        """Names of the parameters that get gradients."""
        return tuple(name for name, parameter in self.parameters.items() if self.is_training and parameter.requires_grad)
