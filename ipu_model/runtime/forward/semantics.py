"""How operations behave inside a captured `forward`: what differs from plain torch, as a mode over torch's functions."""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import Error
from ..structures import tensors_in
from .ctc import ctc_loss
from .host_tensors import HostTensors, is_host_tensor
from .index_arguments import ITEMS, widen_indices
from .recording import Recording
from .slices import Offsets, dynamic_getitem, is_dynamic, with_constant_bounds

logger = logging.getLogger("poptorch::python")
F = torch.nn.functional

CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}

# Operations that compute in the type of their first argument: a float32 weight that meets a half activation is cast to half.
_TYPED_BY_ACTIVATION = CONVOLUTIONS | {
    F.linear, F.layer_norm, F.group_norm, F.prelu, torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.Tensor.matmul,
    torch.Tensor.__matmul__, torch.group_norm, torch.layer_norm,
}  # fmt: skip

_FACTORIES = {
    torch.arange, torch.empty, torch.full, torch.linspace, torch.logspace, torch.ones, torch.rand, torch.randint, torch.randn,
    torch.randperm, torch.range, torch.tensor, torch.zeros, torch.normal,
}  # fmt: skip

_LIKES = {torch.full_like, torch.zeros_like}  # of a tensor on the CPU they make one on the device too

LOSSES = {
    getattr(module, name)
    for module in (F, torch)
    for name in (
        "l1_loss mse_loss smooth_l1_loss huber_loss nll_loss cross_entropy binary_cross_entropy binary_cross_entropy_with_logits kl_div "
        "poisson_nll_loss hinge_embedding_loss soft_margin_loss multilabel_soft_margin_loss cosine_embedding_loss "
        "margin_ranking_loss triplet_margin_loss ctc_loss"
    ).split()
    if hasattr(module, name)
}

# What needs the value of a tensor: on the device there is none before the graph runs.
_READ_NAMES = "item tolist numpy __bool__ __int__ __float__ __complex__ __index__ __array__ __contains__ is_nonzero equal allclose"
_READS = {getattr(torch.Tensor, name) for name in _READ_NAMES.split()} | {torch.is_nonzero, torch.equal, torch.allclose}
_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor, torch.Tensor.new)  # of a list they take the elements' values
_TEXTS = (torch.Tensor.__repr__, torch.Tensor.__format__, torch.Tensor.__str__)

_DTYPE: Any = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]


class IpuSemantics(TorchFunctionMode):
    """While capturing: activation-typed operations, "ipu" as a device, int64 that reports int32, losses that mark themselves."""

    def __init__(
        self,
        record: Recording,
        device: torch.device,
        inputs: Sequence[Any] = (),
        registered: Optional[Mapping[int, torch.Tensor]] = None,
    ) -> None:
        super().__init__()
        self._record = record
        self._input_ids = {id(value) for value in inputs if isinstance(value, torch.Tensor)}
        self._device = device
        self._host = HostTensors(device, registered)
        self._offsets = Offsets()
        self._warned: Set[str] = set()

    def in_backward(self) -> TorchDispatchMode:
        """What holds in the backward pass too: tensors of the CPU are its own."""
        return self._host.in_backward()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = self._host.registered_on_device(args, dict(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        is_host = bool(tensors) and all(is_host_tensor(value) for value in tensors)
        asks_for_cpu = kwargs.get("device") == "cpu" and (is_host or not tensors)
        if is_host and (func in _FACTORIES or func in _LIKES) and not asks_for_cpu:
            self._warn_once(func.__name__)
            return self._host.upload(self._host.run(func, args, {**kwargs, "device": None}, False))
        if is_host and self._is_move(func, args, kwargs):
            args = (self._host.upload(args[0]), *args[1:])
        elif asks_for_cpu or is_host:
            return self._host.run(func, args, kwargs, asks_for_cpu)
        return self._run_on_device(func, args, kwargs)

    def _run_on_device(self, func: Any, args: Any, kwargs: Dict[str, Any]) -> Any:
        if func == _DTYPE:  # made anew at every access: equal, not the same
            dtype = func(*args)
            return torch.int32 if dtype == torch.int64 else dtype
        if func in _TEXTS:
            return "<unavailable>"
        if func in _READS or (func in _FROM_NUMBERS and tensors_in(args[-1:]) and not isinstance(args[-1], torch.Tensor)):
            raise reads_a_value(func.__name__)
        if func is torch.Tensor.register_hook:
            self._record.has_tensor_hooks = True
        args, kwargs = self._host.meet(func, args, kwargs)
        tensors = tensors_in((args, kwargs))
        args, kwargs = self._adapt(func, args, kwargs)
        if func in ITEMS:
            args = (args[0], with_constant_bounds(args[1]), *args[2:])
        if func is torch.Tensor.__getitem__ and is_dynamic(args[1]):
            result = dynamic_getitem(args[0], args[1], self._offsets)
        else:
            result = _REPLACED.get(func, func)(*args, **kwargs)
        self._note(func, args, kwargs, tensors, result)
        return result

    def _adapt(self, func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        args = tuple(self._device if isinstance(arg, (str, torch.device)) and str(arg).startswith("ipu") else arg for arg in args)
        if str(kwargs.get("device", "")).startswith("ipu"):
            kwargs["device"] = self._device
        elif func in _FACTORIES and kwargs.get("device") is None and not tensors_in((args, kwargs)):
            self._warn_once(func.__name__)
            kwargs["device"] = self._device
        if func in _TYPED_BY_ACTIVATION:
            args, kwargs = _cast_to_activation(args, kwargs)
        args, kwargs = widen_indices(func, args, kwargs)
        _check_support(func, args, kwargs)
        return args, kwargs

    def _note(self, func: Any, args: Any, kwargs: Any, tensors: List[torch.Tensor], result: Any) -> None:
        """Keep what the checks at the end of capture need."""
        record = self._record
        results = tensors_in(result)
        if not results:
            return
        for value in results:
            if value.numel() == 0:
                raise Error(f"Zero-sized tensors are unsupported: {func.__name__} gives shape {tuple(value.shape)}.")
        record.note_operation()
        if func in CONVOLUTIONS and record.multi_conv_size is not None:
            record.multi_conv_size += 1
        record.used_inputs |= self._input_ids & {id(value) for value in tensors}
        record.losses.follow(tensors, results)
        if func in LOSSES:
            record.losses.mark(result)
        self._offsets.follow(func, args, result)

    def _is_move(self, func: Any, args: Any, kwargs: Dict[str, Any]) -> bool:
        """Whether a tensor of the CPU is sent to the device."""
        targets = [value for value in (*args[1:], kwargs.get("device")) if isinstance(value, (str, torch.device))]
        return func is torch.Tensor.to and bool(targets) and targets[0] != "cpu"

    def _warn_once(self, name: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("torch.%s without a device inside forward makes its tensor on the IPU", name)


def reads_a_value(name: str) -> Error:
    """The error for code that looks at the value of a tensor of the device."""
    return Error(
        f"forward reads the value of a tensor while it is being captured ({name}; also .item(), .tolist(), int(), bool(), if on a tensor): "
        "keep it a tensor, use poptorch.cond or poptorch.for_loop, or compute it in a poptorch.CPU function."
    )


def _cast_to_activation(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    activation = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
    if activation is None or activation.dtype not in (torch.float16, torch.float32):
        return args, kwargs

    def cast(value: Any) -> Any:
        is_other = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != activation.dtype
        return value.to(activation.dtype) if is_other else value

    return tuple(cast(arg) for arg in args), {key: cast(value) for key, value in kwargs.items()}


def _one_hot(tensor: torch.Tensor, num_classes: int) -> torch.Tensor:
    """torch's own looks at the values."""
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).to(torch.int64)


def _random(tensor: torch.Tensor, *bounds: Any, **named: Any) -> torch.Tensor:
    """Tensor.random_: graphs are written in Python, and the overload with two bounds has a keyword, `from`, as its name."""
    if len(bounds) + len(named) < 2:
        return tensor.random_(*bounds, **named)
    low, high = (*bounds, *(named[key] for key in ("from", "to") if key in named))
    return tensor.copy_(torch.randint(low, high, tuple(tensor.shape), device=tensor.device))


_REPLACED = {F.one_hot: _one_hot, F.ctc_loss: ctc_loss, torch.ctc_loss: ctc_loss, torch.Tensor.random_: _random}


def _check_support(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
    """`Error` for what the device needs to know while compiling, or does not have."""
    if func is F.one_hot and (args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) == -1:
        raise Error("OneHot num classes must be given: the shape of the result cannot depend on the values. Pass num_classes.")
    is_bincount = func in (torch.bincount, torch.Tensor.bincount)
    if is_bincount and not (args[2] if len(args) > 2 else kwargs.get("minlength", 0)):
        raise Error("Bincount minlength must be given (`minlength`): the shape of the result cannot depend on the values.")
    if func is F.interpolate and str(kwargs.get("mode", args[3] if len(args) > 3 else "nearest")) in ("linear", "trilinear"):
        raise Error("Upsampling in linear and trilinear mode is not supported on the IPU: use nearest, bilinear or bicubic.")
    weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
    if func in (F.cross_entropy, F.nll_loss) and weight is not None:
        raise Error(f"Class weights in {func.__name__} are not supported on the IPU: weigh the unreduced loss instead.")
