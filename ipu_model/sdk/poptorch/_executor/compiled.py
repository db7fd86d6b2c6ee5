"""A compiled model: made once, kept in files whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch

from ipu_model.program.placement import Placement
from ipu_model.runtime.capture import Captured, Target, capture
from ipu_model.runtime.device.layout import split
from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.device.state import DeviceMemory, DeviceState
from ipu_model.runtime.errors import Error
from ipu_model.runtime.graph.cache import TraceCache
from ipu_model.runtime.structures import flatten

from .._placement.blocks import ExecutionStrategy
from . import compile_checks as checks
from .announce import announce_found
from .arguments import Arguments
from .hooks import compile_hooks, substitutions
from .host_module import HostModule
from .replica_grouping import ParameterGroups

_GRADIENT, _UPDATED = "Gradient___", "UpdatedVar___"
Call = Tuple[Tuple[Any, ...], Dict[str, Any]]
Find = Callable[[DeviceState, int, Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Compiled:
    """What follows from a model, its options and its first inputs.

    Attributes:
        arguments: what later calls are compared with.
        shapes: of the model's parameters and buffers.
        parameters, buffers, trainable: names, in the order of the captured program.
        seconds: how long compiling took.
    """

    captured: Captured
    placement: Placement
    arguments: Arguments
    is_training: bool
    shapes: Dict[str, Any]
    parameters: Tuple[str, ...]
    buffers: Tuple[str, ...]
    trainable: Tuple[str, ...]
    seconds: float = 0.0

    @property
    def tensor_names(self) -> List[str]:
        """Names of what can be watched: parameters, buffers, gradients of trainable parameters, and their values after an update."""
        of_training = [f"{prefix}{name}" for prefix in (_GRADIENT, _UPDATED) for name in self.trainable]
        return [*self.parameters, *self.buffers, *of_training]

    def is_of_update(self, name: str) -> bool:
        """Whether a tensor is there once for each weight update, not for each micro batch."""
        return name.startswith(_UPDATED) and name[len(_UPDATED) :] in self.trainable

    def find(self, name: str) -> Find:
        """What gives a tensor by its name, of (state, replica, gradients); `Error` for a name that is not in `tensor_names`."""
        if name in self.parameters:
            index = self.parameters.index(name)
            return lambda state, replica, gradients: state.parameters_of(replica)[index]
        if name in self.buffers:
            index = self.buffers.index(name)
            return lambda state, replica, gradients: state.buffers[replica][index]
        if self.is_of_update(name):
            return self.find(name[len(_UPDATED) :])
        parameter = name[len(_GRADIENT) :]
        if name.startswith(_GRADIENT) and parameter in self.trainable:
            index = self.trainable.index(parameter)
            return lambda state, replica, gradients: gradients[index]
        raise Error(f"Cannot anchor {name!r}: the IPU Model knows {', '.join(self.tensor_names)}.")


def micro_batch(inputs: Call, settings: RunSettings, take: Callable[[Any], Any] = lambda value: value) -> Call:
    """The first micro batch of a call's arguments."""
    leaves, structure = flatten(inputs)
    return structure.unflatten([split(take(leaf), settings.layout)[0] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])


def compile_model(
    host: HostModule,
    memory: DeviceMemory,
    groups: ParameterGroups,
    settings: RunSettings,
    inputs: Call,
    arguments: Arguments,
    strategy: ExecutionStrategy,
) -> Compiled:
    """Capture one micro batch of a model.

    Args:
        inputs: (args, kwargs) of combined-batch shape, in canonical form.
        arguments: the same as later calls are compared with them.
        strategy: places the blocks that forward begins, and numbers those without an id.
    """
    start = time.perf_counter()
    parameters = host.on_device(host.parameters)
    buffers = host.on_device(host.buffers)
    trainable = host.trainable
    first = micro_batch(inputs, settings, memory.take)
    cache = None if settings.cache_folder is None else TraceCache(settings.cache_folder)
    target = Target(host.is_training, settings.is_stochastic_rounding, cache, strategy.block_ids)
    wanted = [name in trainable for name in parameters]
    with torch.no_grad(), compile_hooks(), substitutions():
        captured, record = capture(host.runs, groups.one_replicas(parameters), wanted, buffers, first, target)
    compiled = Compiled(
        captured=captured,
        placement=_checked(strategy.place(list(captured.block_starts)), settings, host.is_training),
        arguments=arguments,
        is_training=host.is_training,
        shapes=host.shapes,
        parameters=tuple(parameters),
        buffers=tuple(buffers),
        trainable=trainable,
    )
    checks.check_captured(settings, host.runs, captured, record)
    seconds = time.perf_counter() - start
    if cache is not None and cache.seconds_when_captured is not None:
        announce_found(str(cache.folder), seconds, cache.seconds_when_captured)
    return replace(compiled, seconds=seconds)


def _checked(placement: Placement, settings: RunSettings, is_training: bool) -> Placement:
    layout = settings.layout
    try:
        reserved = placement.num_ipus(layout.replication_factor, settings.is_ipu_count_rounded)
        if settings.is_pipelined:
            placement.check_pipeline_depth(layout.gradient_accumulation, layout.device_iterations, is_training)
    except ValueError as error:
        raise Error(str(error), type="poptorch_cpp_error") from error
    checks.warn_of_rounding(reserved, placement.ipus_per_replica * layout.replication_factor)
    return placement


def check_fits(compiled: Compiled, host: HostModule, filename: str) -> None:
    """`Error` where a compiled model from a file is not of this model."""
    if compiled.is_training != host.is_training:
        raise Error(f"{filename} is of a {'training' if compiled.is_training else 'inference'} model, this is the other kind.")
    if compiled.shapes != host.shapes:
        raise Error(f"{filename} is of a model with other parameters or buffers than this one.")
