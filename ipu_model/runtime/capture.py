"""Capture: run `forward` once and keep what it did, backward included, as a graph that can be replayed.

The graph is ATen operations recorded by `make_fx` over a functional step, with fake tensors: nothing is computed while capturing.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import fx
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .errors import Error
from .hoisting import SplitGraph, aliases
from .precision import emulate_half_in_float32
from .recording import BlockStart, Recording, recording

_NARROW = {torch.int64: torch.int32, torch.float64: torch.float32, torch.bfloat16: torch.float32}

# Operations that compute in the type of their first argument: a float32 weight that meets a half activation is cast to half.
_TYPED_BY_ACTIVATION = {
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose2d, torch.nn.functional.linear, torch.matmul, torch.bmm,
    torch.mm, torch.addmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.nn.functional.layer_norm,
    torch.nn.functional.group_norm, torch.group_norm, torch.layer_norm, torch.nn.functional.prelu,
}  # fmt: skip

_FACTORIES = {
    torch.arange, torch.empty, torch.full, torch.linspace, torch.logspace, torch.ones, torch.rand, torch.randint, torch.randn,
    torch.randperm, torch.range, torch.tensor, torch.zeros,
}  # fmt: skip


@dataclass(frozen=True)
class Captured:
    """A captured step.

    `prepare` computes what does not change between micro batches, `run` one micro batch: it returns (output tensors, gradients), the
    gradients those of `loss_scale * loss`, one for each trainable parameter, none for inference.
    """

    graph: SplitGraph
    num_outputs: int
    output_structure: pytree.TreeSpec
    output_constants: Dict[int, Any]
    block_starts: Tuple[BlockStart, ...]

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
        count = self.output_structure.num_leaves
        leaves = [self.output_constants[i] if i in self.output_constants else next(remaining) for i in range(count)]
        return pytree.tree_unflatten(leaves, self.output_structure)


class _IpuSemantics(TorchFunctionMode):
    """While capturing: activation-typed operations, "ipu" as a device, losses that mark themselves."""

    def __init__(self, record: Recording, device: torch.device) -> None:
        super().__init__()
        self._record = record
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        args = tuple(self._device if isinstance(arg, (str, torch.device)) and str(arg).startswith("ipu") else arg for arg in args)
        if str(kwargs.get("device", "")).startswith("ipu") or (func in _FACTORIES and kwargs.get("device") is None):
            kwargs["device"] = self._device
        if func in _TYPED_BY_ACTIVATION:
            args, kwargs = _cast_to_activation(args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            if not self._record.is_inside_block:
                self._record.has_operations_outside_blocks = True
            if func in _LOSSES:
                self._record.losses.append(result)
        return result


_LOSSES = {
    getattr(torch.nn.functional, name)
    for name in (
        "l1_loss mse_loss smooth_l1_loss nll_loss cross_entropy binary_cross_entropy binary_cross_entropy_with_logits kl_div "
        "poisson_nll_loss hinge_embedding_loss soft_margin_loss multilabel_soft_margin_loss cosine_embedding_loss "
        "margin_ranking_loss triplet_margin_loss ctc_loss"
    ).split()
}


def _cast_to_activation(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    activation = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
    if activation is None or activation.dtype not in (torch.float16, torch.float32):
        return args, kwargs

    def cast(value: Any) -> Any:
        is_other = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != activation.dtype
        return value.to(activation.dtype) if is_other else value

    return tuple(cast(arg) for arg in args), {key: cast(value) for key, value in kwargs.items()}


def narrow_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the type it has on the device: float64 and bfloat16 become float32.

    int64 stays as it is inside, since torch's index arguments demand it; `device_dtype` is what a program sees come back.
    """
    return tensor.to(torch.float32) if tensor.dtype in (torch.float64, torch.bfloat16) else tensor


def device_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """A result in the type in which the device returns it: int64 as int32, float64 as float32."""
    return tensor.to(_NARROW[tensor.dtype]) if tensor.dtype in _NARROW else tensor


class _Step:
    """The functional step that is traced: state and inputs in, outputs and gradients out."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], trainable: Sequence[bool], buffer_names: Sequence[str]) -> None:
        self.model, self.names, self.trainable, self.buffer_names = model, names, trainable, buffer_names
        self.outputs: List[Any] = []
        self.structure: Any = None
        self.record: Any = None

    def __call__(self, parameters: List[torch.Tensor], buffers: List[torch.Tensor], inputs: Any, loss_scale: torch.Tensor) -> Any:
        is_training = any(self.trainable)
        leaves = [
            parameter.detach().requires_grad_(True) if needs_gradient else parameter
            for parameter, needs_gradient in zip(parameters, self.trainable)
        ]
        state = {**dict(zip(self.names, leaves)), **dict(zip(self.buffer_names, buffers))}
        args, kwargs = inputs
        with recording(is_training) as self.record, _IpuSemantics(self.record, loss_scale.device), torch.set_grad_enabled(is_training):
            result = functional_call(self.model, state, args, kwargs)
        self.record.check_blocks()
        gradients = self._gradients(leaves, loss_scale) if is_training else []
        self.outputs, self.structure = pytree.tree_flatten(result)
        tensors = [device_dtype(output.detach()) for output in self.outputs if isinstance(output, torch.Tensor)]
        return tensors, gradients

    def _gradients(self, leaves: List[torch.Tensor], loss_scale: torch.Tensor) -> List[torch.Tensor]:
        wanted = [leaf for leaf, needs_gradient in zip(leaves, self.trainable) if needs_gradient]
        loss = self.record.final_loss()
        if not loss.requires_grad:
            return [torch.zeros_like(leaf) for leaf in wanted]
        seed = loss_scale.to(loss.dtype).expand(loss.shape)
        gradients = torch.autograd.grad(loss, wanted, seed, allow_unused=True)
        return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(wanted, gradients)]


def capture(
    model: torch.nn.Module,
    parameters: Dict[str, torch.Tensor],
    trainable: Sequence[bool],
    buffers: Dict[str, torch.Tensor],
    inputs: Tuple[Tuple[Any, ...], Dict[str, Any]],
) -> Captured:
    """Capture one micro batch of a model.

    Args:
        model: its `forward` runs once; training and evaluation mode are those of its modules now.
        parameters: device tensors by dotted name, in the order of the graph's first argument.
        trainable: for each parameter, whether it gets a gradient; none for inference.
        buffers: device tensors by dotted name; in-place updates become part of the graph.
        inputs: (args, kwargs) of `forward` at micro-batch size.

    Raises:
        Error: no loss or several, no active block, or control flow that depends on tensor values.
    """
    step = _Step(model, list(parameters), trainable, list(buffers))
    leaves = pytree.tree_flatten(inputs)[0]
    device = next((leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)), torch.device("cpu"))
    example = (list(parameters.values()), list(buffers.values()), inputs, torch.ones((), device=device))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
            graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
    except Exception as error:
        if type(error).__name__ in ("DataDependentOutputException", "GuardOnDataDependentSymNode"):
            raise Error(
                "forward reads the value of a tensor while it is being captured (.item(), int(), if on a tensor): "
                f"{error}. Keep the value a tensor, or use poptorch.cond or poptorch.for_loop."
            ) from error
        raise
    _copy_aliased_outputs(graph)
    if device.type == "cpu":
        emulate_half_in_float32(graph)
    constants = {index: value for index, value in enumerate(step.outputs) if not isinstance(value, torch.Tensor)}
    split = SplitGraph(graph, len(parameters) + len(buffers))
    return Captured(split, len(step.outputs) - len(constants), step.structure, constants, tuple(step.record.block_starts))


def _copy_aliased_outputs(graph_module: fx.GraphModule) -> None:
    """Results that are views of state or inputs become copies: the weight update that follows would change them."""
    graph = graph_module.graph
    (output,) = [node for node in graph.nodes if node.op == "output"]

    def copied(value: Any) -> Any:
        is_alias = isinstance(value, fx.Node) and any(source.op == "placeholder" for source in aliases(value))
        if not is_alias:
            return value
        with graph.inserting_before(output):
            copy = graph.call_function(torch.ops.aten.clone.default, (value,))
        copy.meta.update(value.meta)
        return copy

    output.args = pytree.tree_map(copied, output.args)
    graph_module.recompile()


def bind_arguments(function: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
    """Check arguments against a signature as PopTorch does.

    Raises:
        AssertionError: too many arguments, an unknown keyword, an argument given twice.
        Error: a mandatory argument is missing.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return
    names = list(signature.parameters)
    assert len(args) <= len(names), f"Too many arguments: {len(args)} given, at most {len(names)} expected ({', '.join(names)})"
    for name in kwargs:
        assert name in names, f"Unknown argument {name!r}; known: {', '.join(names)}"
        assert name not in names[: len(args)], f"Argument {name!r} is given twice"
    for name in names[len(args) :]:
        if name not in kwargs and signature.parameters[name].default is inspect.Parameter.empty:
            raise Error(f"Mandatory parameter {name} missing: forward takes ({', '.join(names)}).")
