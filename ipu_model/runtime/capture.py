"""Capture: run `forward` once and keep what it did, backward included, as a graph that can be replayed.

The graph is ATen operations recorded by `make_fx` over a functional step, with fake tensors: nothing is computed while capturing.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple

import torch
from torch import fx
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from .errors import Error
from .forward.checks import bindings_checked, check_overlap
from .forward.recording import BlockStart, Recording, recording
from .forward.semantics import IpuSemantics
from .graph.aliases import copy_aliased_outputs, written_arguments, written_in_place
from .graph.cache import Found, TraceCache, without_marks
from .graph.half import emulate_half_in_float32
from .graph.hoisting import SplitGraph, split_graph
from .graph.regions import outline_regions
from .structures import Structure, flatten

logger = logging.getLogger("poptorch::python")
_NARROW = {torch.int64: torch.int32, torch.float64: torch.float32, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Captured:
    """A captured step.

    `prepare` computes what does not change between micro batches, `run` one micro batch: it returns (output tensors, gradients), the
    gradients those of `loss_scale * loss`, one for each trainable parameter, none for inference.

    Attributes:
        written_buffers: names of the buffers that forward updates in place.
        written_inputs: numbers of the input leaves that forward updates in place.
    """

    graph: SplitGraph
    num_outputs: int
    output_structure: Structure
    output_constants: Dict[int, Any]
    block_starts: Tuple[BlockStart, ...]
    written_buffers: FrozenSet[str]
    written_inputs: FrozenSet[int]

    def prepare(self, parameters: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What follows from the parameters, and from buffers that are not updated, until they change."""
        return self.graph.prepare((*parameters, *buffers))

    def run(
        self,
        prepared: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        buffers: Sequence[torch.Tensor],
        inputs: Sequence[Any],
        loss_scale: torch.Tensor,
    ) -> Tuple[List[torch.Tensor], List[torch.Tensor]]:
        """One micro batch; `inputs` are the leaves of (args, kwargs) in order. Buffers are updated in place."""
        results = self.graph.run((*parameters, *buffers, *inputs, loss_scale), prepared)
        return results[: self.num_outputs], results[self.num_outputs :]

    def restore_outputs(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The structure that `forward` returned, with these tensors in it."""
        remaining = iter(tensors)
        count = self.num_outputs + len(self.output_constants)
        leaves = [self.output_constants[i] if i in self.output_constants else next(remaining) for i in range(count)]
        return self.output_structure.unflatten(leaves)


def narrow_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the type it has on the device: float64 and bfloat16 become float32.

    int64 stays as it is inside, since torch's index arguments demand it; it reports int32 there and comes back as int32.
    """
    return tensor.to(torch.float32) if tensor.dtype in (torch.float64, torch.bfloat16) else tensor


def device_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """A result in the type in which the device returns it: int64 as int32, float64 as float32."""
    return tensor.to(_NARROW[tensor.dtype]) if tensor.dtype in _NARROW else tensor


@dataclass(frozen=True)
class Target:
    """What a model is captured for.

    Attributes:
        is_training: whether there must be a loss.
        is_stochastic: whether casts to half round stochastically.
        cache: where captured programs are kept.
    """

    is_training: bool
    is_stochastic: bool = False
    cache: Optional[TraceCache] = None


class _Step:
    """The functional step that is traced: state and inputs in, outputs and gradients out."""

    def __init__(
        self,
        model: torch.nn.Module,
        names: Sequence[str],
        trainable: Sequence[bool],
        buffer_names: Sequence[str],
        structure: Structure,
        target: Target,
    ) -> None:
        self.model, self.names, self.trainable, self.buffer_names = model, names, trainable, buffer_names
        self.structure, self.target = structure, target  # structure: of (args, kwargs)
        self.output_structure: Any = None
        self.constants: Dict[int, Any] = {}
        self.num_outputs = 0
        self.record: Any = None

    def __call__(self, parameters: List[torch.Tensor], buffers: List[torch.Tensor], leaves: List[Any], loss_scale: torch.Tensor) -> Any:
        needs_backward = any(self.trainable)
        weights = [
            parameter.detach().requires_grad_(True) if needs_gradient else parameter
            for parameter, needs_gradient in zip(parameters, self.trainable)
        ]
        state = {**dict(zip(self.names, weights)), **dict(zip(self.buffer_names, buffers))}
        args, kwargs = self.structure.unflatten(leaves)
        with recording(self.target.is_training) as self.record, IpuSemantics(self.record, loss_scale.device, leaves) as semantics:
            with torch.set_grad_enabled(needs_backward), bindings_checked(self.model, state):
                result = functional_call(self.model, state, args, kwargs)
        self.record.check_blocks()
        outputs = self._outputs(result, leaves, semantics)
        loss = self.record.losses.final() if self.target.is_training else None
        if self.target.cache is not None and not self.record.has_tensor_hooks:
            settings = (self.trainable, self.target.is_training, self.target.is_stochastic)
            self.target.cache.look_up((*parameters, *buffers, *leaves), outputs, loss, settings)
        return outputs, [] if loss is None else self._gradients(loss, weights, loss_scale)

    def _outputs(self, result: Any, leaves: List[Any], semantics: IpuSemantics) -> List[torch.Tensor]:
        outputs, self.output_structure = flatten(result)
        self.constants = {
            index: value for index, value in enumerate(outputs) if not isinstance(value, torch.Tensor) or semantics.is_host_tensor(value)
        }
        if any(isinstance(value, torch.Tensor) for value in self.constants.values()):
            logger.warning("forward returns a CPU tensor: it comes back from every call as it was at compilation.")
        check_overlap(self.record, leaves, outputs)
        tensors = [value for index, value in enumerate(outputs) if index not in self.constants]
        self.num_outputs = len(tensors)
        return [device_dtype(tensor.detach()) for tensor in tensors]

    def _gradients(self, loss: torch.Tensor, weights: List[torch.Tensor], loss_scale: torch.Tensor) -> List[torch.Tensor]:
        wanted = [weight for weight, needs_gradient in zip(weights, self.trainable) if needs_gradient]
        if not loss.requires_grad:
            return [torch.zeros_like(weight) for weight in wanted]
        seed = loss_scale.to(loss.dtype).expand(loss.shape)
        gradients = torch.autograd.grad(loss, wanted, seed, allow_unused=True)
        return [torch.zeros_like(weight) if grad is None else grad for weight, grad in zip(wanted, gradients)]


def capture(
    model: torch.nn.Module,
    parameters: Dict[str, torch.Tensor],
    trainable: Sequence[bool],
    buffers: Dict[str, torch.Tensor],
    inputs: Tuple[Tuple[Any, ...], Dict[str, Any]],
    target: Target,
) -> Tuple[Captured, Recording]:
    """Capture one micro batch of a model.

    Args:
        model: its `forward` runs once; training and evaluation mode are those of its modules now.
        parameters: device tensors by dotted name, in the order of the graph's first argument.
        trainable: for each parameter, whether it gets a gradient; none for inference.
        buffers: device tensors by dotted name; in-place updates become part of the graph.
        inputs: (args, kwargs) of `forward` at micro-batch size.
        target: for what.

    Raises:
        Error: no loss or several, no active block, or control flow that depends on tensor values.
    """
    leaves, structure = flatten(inputs)
    step = _Step(model, list(parameters), trainable, list(buffers), structure, target)
    tensors = [*parameters.values(), *buffers.values(), *(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))]
    device = tensors[0].device if tensors else torch.device("cpu")
    example = (list(parameters.values()), list(buffers.values()), leaves, torch.ones((), device=device))
    try:
        captured = _lower(_trace(step, example), step, len(leaves), device, target.is_stochastic)
        if target.cache is not None:
            target.cache.store(captured)
    except Found:
        stored = target.cache.read() if target.cache is not None else None
        if stored is None:
            return capture(model, parameters, trainable, buffers, inputs, target)
        captured = replace(  # what forward returns and annotates is this process's own
            stored,
            output_structure=step.output_structure,
            output_constants=step.constants,
            block_starts=tuple(step.record.block_starts),
        )
    return captured, step.record


def _lower(graph: fx.GraphModule, step: _Step, num_leaves: int, device: torch.device, is_stochastic: bool) -> Captured:
    """From the operations as traced to what is replayed."""
    without_marks(graph.graph)
    copy_aliased_outputs(graph)
    if device.type == "cpu":
        emulate_half_in_float32(graph, written_in_place(graph.graph), is_stochastic)
    written = written_arguments(graph)
    outline_regions(graph)
    num_parameters, num_state = len(step.names), len(step.names) + len(step.buffer_names)
    return Captured(
        graph=split_graph(graph, num_state),
        num_outputs=step.num_outputs,
        output_structure=step.output_structure,
        output_constants=step.constants,
        block_starts=tuple(step.record.block_starts),
        written_buffers=frozenset(name for index, name in enumerate(step.buffer_names, start=num_parameters) if index in written),
        written_inputs=frozenset(index for index in range(num_leaves) if num_state + index in written),
    )


def _trace(step: _Step, example: Tuple[Any, ...]) -> fx.GraphModule:
    validates = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
            # oneDNN's recurrent layers have no backward pass on fake tensors; how others compute is chosen when the graph runs.
            with torch.backends.mkldnn.flags(enabled=False):
                return make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
    except Found:
        raise
    except Exception as error:
        if type(error).__name__ in ("DataDependentOutputException", "GuardOnDataDependentSymNode"):
            raise Error(
                "forward reads the value of a tensor while it is being captured (.item(), int(), if on a tensor): "
                f"{error}. Keep the value a tensor, or use poptorch.cond or poptorch.for_loop."
            ) from error
        raise
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)
