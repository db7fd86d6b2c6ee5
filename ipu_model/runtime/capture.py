"""Capture: run `forward` once and keep what it did, backward included, as a graph that can be replayed.

The graph is ATen operations recorded by `make_fx` over a functional step, with fake tensors: nothing is computed while capturing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from .forward.checks import bindings_checked, check_overlap, host_constant
from .forward.host_tensors import is_host_tensor
from .forward.recording import BlockIds, BlockStart, Recording, recording
from .forward.semantics import IpuSemantics, reads_a_value
from .forward.truncated_normal import drawn_without_rejection
from .graph.aliases import check_constants, copy_aliased_outputs, read_statistics_of_before, written_arguments, written_in_place
from .graph.cache import Found, TraceCache, without_marks
from .graph.half import emulate_half_in_float32
from .graph.hoisting import SplitGraph, split_graph
from .graph.regions import outline_regions
from .rounding import device_dtype, narrow_dtype as narrow_dtype
from .structures import Structure, flatten, map_leaves


@dataclass(frozen=True)
class Captured:
    """A captured step.

    `prepare` computes what does not change between micro batches, `run` one micro batch: it returns (output tensors, gradients), the
    gradients those of `loss_scale * loss`, one for each trainable parameter, none for inference.

    Attributes:
        input_structure: of (args, kwargs); `input_structure.flatten((args, kwargs))` gives the leaves that `run` takes.
        tensor_inputs: numbers of the leaves that are tensors; the others are constants of the graph.
        written_parameters, written_buffers: names of those that forward updates in place.
        written_inputs: numbers of the input leaves that forward updates in place.
    """

    graph: SplitGraph
    input_structure: Structure
    tensor_inputs: Tuple[int, ...]
    num_outputs: int
    output_structure: Structure
    output_constants: Dict[int, Any]
    block_starts: Tuple[BlockStart, ...]
    written_parameters: FrozenSet[str]
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
        tensors = [inputs[index] for index in self.tensor_inputs]
        results = self.graph.run((*parameters, *buffers, *tensors, loss_scale), prepared)
        return results[: self.num_outputs], results[self.num_outputs :]

    def restore_outputs(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The structure that `forward` returned, with these tensors in it."""
        remaining = iter(tensors)
        count = self.num_outputs + len(self.output_constants)
        leaves = [_fresh(self.output_constants[i]) if i in self.output_constants else next(remaining) for i in range(count)]
        return self.output_structure.unflatten(leaves)


def _fresh(constant: Any) -> Any:
    return constant.clone() if isinstance(constant, torch.Tensor) else constant


@dataclass(frozen=True)
class Target:
    """What a model is captured for.

    Attributes:
        is_training: whether there must be a loss.
        is_stochastic: whether casts to half round stochastically.
        cache: where captured programs are kept.
        block_ids: of the execution strategy.
    """

    is_training: bool
    is_stochastic: bool = False
    cache: Optional[TraceCache] = None
    block_ids: BlockIds = field(default_factory=BlockIds)


class _Step:
    """The functional step that is traced: state and inputs in, outputs and gradients out."""

    def __init__(
        self,
        model: torch.nn.Module,
        names: Sequence[str],
        trainable: Sequence[bool],
        buffer_names: Sequence[str],
        inputs: Tuple[Tuple[Any, ...], Dict[str, Any]],
        target: Target,
    ) -> None:
        self.model, self.names, self.trainable, self.buffer_names = model, names, trainable, buffer_names
        self.leaves, self.structure = flatten(inputs)
        self.target = target
        self.output_structure: Any = None
        self.constants: Dict[int, Any] = {}
        self.num_outputs = 0
        self.record: Any = None

    def __call__(self, parameters: List[torch.Tensor], buffers: List[torch.Tensor], given: List[torch.Tensor], scale: torch.Tensor) -> Any:
        needs_backward = any(self.trainable)
        weights = [
            parameter.detach().requires_grad_(True) if needs_gradient else parameter
            for parameter, needs_gradient in zip(parameters, self.trainable)
        ]
        state = {**dict(zip(self.names, weights)), **dict(zip(self.buffer_names, buffers))}
        remaining = iter(given)
        leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = self.structure.unflatten(leaves)
        with recording(self.target.is_training, self.target.block_ids) as self.record:
            semantics = self._semantics(state, leaves, scale.device)
            with semantics, torch.set_grad_enabled(needs_backward), bindings_checked(self.model, state):
                result = functional_call(self.model, state, args, kwargs)
            self.record.check_blocks()
            outputs = self._outputs(result, leaves)
            loss = self.record.losses.final() if self.target.is_training else None
            if self.target.cache is not None and not self.record.has_tensor_hooks and not self.record.host_functions:
                settings = (self.trainable, self.target.is_training, self.target.is_stochastic)
                self.target.cache.look_up((*parameters, *buffers, *leaves), outputs, loss, settings)
            with semantics.in_backward():
                return outputs, [] if loss is None else self._gradients(loss, weights, scale)

    def _semantics(self, state: Dict[str, torch.Tensor], leaves: List[Any], device: torch.device) -> IpuSemantics:
        named = (*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers(remove_duplicate=False))
        registered = {id(value): state[name] for name, value in named if name in state}
        return IpuSemantics(self.record, device, leaves, registered)

    def _outputs(self, result: Any, leaves: List[Any]) -> List[torch.Tensor]:
        outputs, self.output_structure = flatten(result)
        self.constants = {
            index: host_constant(value)
            for index, value in enumerate(outputs)
            if not isinstance(value, torch.Tensor) or is_host_tensor(value)
        }
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
    step = _Step(model, list(parameters), trainable, list(buffers), inputs, target)
    given = [leaf for leaf in step.leaves if isinstance(leaf, torch.Tensor)]
    tensors = [*parameters.values(), *buffers.values(), *given]
    device = tensors[0].device if tensors else torch.device("cpu")
    example = (list(parameters.values()), list(buffers.values()), given, torch.ones((), device=device))
    try:
        captured = _lower(_trace(step, example), step, device)
        if target.cache is not None:
            target.cache.store(captured)
    except Found:
        stored = target.cache.read() if target.cache is not None else None
        if stored is None:
            return capture(model, parameters, trainable, buffers, inputs, target)
        captured = replace(  # what forward returns and annotates is this process's own
            stored,
            input_structure=step.structure,
            output_structure=step.output_structure,
            output_constants=step.constants,
            block_starts=tuple(step.record.block_starts),
        )
    return captured, step.record


def _lower(graph: fx.GraphModule, step: _Step, device: torch.device) -> Captured:
    """From the operations as traced to what is replayed."""
    without_marks(graph.graph)
    check_constants(graph.graph)
    read_statistics_of_before(graph.graph)
    copy_aliased_outputs(graph)
    if device.type == "cpu":
        emulate_half_in_float32(graph, written_in_place(graph.graph), step.target.is_stochastic)
    written = written_arguments(graph)
    outline_regions(graph, step.record.host_functions)
    num_parameters, num_state = len(step.names), len(step.names) + len(step.buffer_names)
    tensor_inputs = tuple(index for index, leaf in enumerate(step.leaves) if isinstance(leaf, torch.Tensor))
    return Captured(
        graph=split_graph(graph, num_state),
        input_structure=step.structure,
        tensor_inputs=tensor_inputs,
        num_outputs=step.num_outputs,
        output_structure=step.output_structure,
        output_constants=step.constants,
        block_starts=tuple(step.record.block_starts),
        written_parameters=frozenset(name for index, name in enumerate(step.names) if index in written),
        written_buffers=frozenset(name for index, name in enumerate(step.buffer_names, start=num_parameters) if index in written),
        written_inputs=frozenset(leaf for position, leaf in enumerate(tensor_inputs) if num_state + position in written),
    )


def _trace(step: _Step, example: Tuple[Any, ...]) -> fx.GraphModule:
    """The step's operations on tensors without values; what needs a value is an error, whatever asks for it."""
    validates = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with warnings.catch_warnings(), drawn_without_rejection(), fakes:
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
            # oneDNN's recurrent layers have no backward pass on fake tensors; how others compute is chosen when the graph runs.
            with torch.backends.mkldnn.flags(enabled=False):
                return make_fx(step, tracing_mode="real", _allow_non_fake_inputs=True)(*map_leaves(fakes.from_tensor, example))
    except DataDependentOutputException as error:
        raise reads_a_value(str(error)) from error
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)
