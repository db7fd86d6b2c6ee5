"""How operations behave inside a captured `forward`: what differs from plain torch, as a mode over torch's functions."""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Sequence, Set, Tuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import Error
from .recording import Recording
from .slices import Offsets, dynamic_getitem, is_dynamic

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

LOSSES = {
    getattr(F, name)
    for name in (
        "l1_loss mse_loss smooth_l1_loss huber_loss nll_loss cross_entropy binary_cross_entropy binary_cross_entropy_with_logits kl_div "
        "poisson_nll_loss hinge_embedding_loss soft_margin_loss multilabel_soft_margin_loss cosine_embedding_loss "
        "margin_ranking_loss triplet_margin_loss ctc_loss"
    ).split()
}

# Integer arguments are int32 on the device; torch demands int64 in these places.
_INDEX_ARGUMENTS = {
    torch.gather: (2, "index"), torch.Tensor.gather: (2, "index"), torch.scatter: (2, "index"), torch.Tensor.scatter: (2, "index"),
    torch.Tensor.scatter_: (2, "index"), torch.scatter_add: (2, "index"), torch.Tensor.scatter_add: (2, "index"),
    torch.Tensor.scatter_add_: (2, "index"), torch.Tensor.scatter_reduce: (2, "index"), torch.take: (1, "index"),
    torch.Tensor.take: (1, "index"), torch.take_along_dim: (1, "indices"), torch.Tensor.take_along_dim: (1, "indices"),
    torch.index_select: (2, "index"), torch.Tensor.index_select: (2, "index"), torch.Tensor.index_add: (2, "index"),
    torch.Tensor.index_add_: (2, "index"), torch.Tensor.index_copy: (2, "index"), torch.Tensor.index_copy_: (2, "index"),
    F.nll_loss: (1, "target"), F.cross_entropy: (1, "target"), F.one_hot: (0, "tensor"), F.embedding: (0, "input"),
}  # fmt: skip

_DTYPE: Any = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]
_INTEGERS = (torch.int32, torch.int16, torch.int8)


class IpuSemantics(TorchFunctionMode):
    """While capturing: activation-typed operations, "ipu" as a device, int64 that reports int32, losses that mark themselves."""

    def __init__(self, record: Recording, device: torch.device, inputs: Sequence[Any] = ()) -> None:
        super().__init__()
        self._record = record
        self._input_ids = {id(value) for value in inputs if isinstance(value, torch.Tensor)}
        self._device = device
        self._offsets = Offsets()
        self._host_tensors: Dict[int, torch.Tensor] = {}
        self._warned: Set[str] = set()

    def is_host_tensor(self, value: Any) -> bool:
        """Whether a tensor was made on the CPU inside forward."""
        return id(value) in self._host_tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DTYPE:  # made anew at every access: equal, not the same
            dtype = func(*args)
            return torch.int32 if dtype == torch.int64 else dtype
        kwargs = dict(kwargs or {})
        tensors = [value for value in pytree.tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        if self._belongs_to_host(func, kwargs, tensors):
            return self._run_on_host(func, args, kwargs)
        if func is torch.Tensor.register_hook:
            self._record.has_tensor_hooks = True
        args, kwargs = self._adapt(func, args, kwargs)
        if func is torch.Tensor.__getitem__ and is_dynamic(args[1]):
            result = dynamic_getitem(args[0], args[1], self._offsets)
        elif func is F.one_hot:
            result = _one_hot(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        self._note(func, args, kwargs, tensors, result)
        return result

    def _adapt(self, func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        args = tuple(self._device if isinstance(arg, (str, torch.device)) and str(arg).startswith("ipu") else arg for arg in args)
        if str(kwargs.get("device", "")).startswith("ipu"):
            kwargs["device"] = self._device
        elif func in _FACTORIES and kwargs.get("device") is None:
            self._warn_once(func.__name__, "torch.%s without a device inside forward makes its tensor on the IPU", func.__name__)
            kwargs["device"] = self._device
        if func in _TYPED_BY_ACTIVATION:
            args, kwargs = _cast_to_activation(args, kwargs)
        elif func in _INDEX_ARGUMENTS:
            args, kwargs = _widen_index(args, kwargs, *_INDEX_ARGUMENTS[func])
        elif func is torch.Tensor.__getitem__:
            args = (args[0], pytree.tree_map(_widen, args[1]))
        _check_support(func, args, kwargs)
        return args, kwargs

    def _note(self, func: Any, args: Any, kwargs: Any, tensors: List[torch.Tensor], result: Any) -> None:
        """Keep what the checks at the end of capture need."""
        record = self._record
        results = [value for value in pytree.tree_flatten(result)[0] if isinstance(value, torch.Tensor)]
        if not results:
            return
        for value in results:
            if value.numel() == 0:
                raise Error(f"Zero-sized tensors are unsupported: {func.__name__} gives shape {tuple(value.shape)}.")
        if not record.is_inside_block:
            record.has_operations_outside_blocks = True
        if func in CONVOLUTIONS and record.multi_conv_size is not None:
            record.multi_conv_size += 1
        record.used_inputs |= self._input_ids & {id(value) for value in tensors}
        record.losses.follow(tensors, results)
        if func in LOSSES:
            record.losses.mark(result)
        self._offsets.follow(func, args, result)

    # ---- tensors on the CPU inside forward

    def _belongs_to_host(self, func: Any, kwargs: Dict[str, Any], tensors: List[torch.Tensor]) -> bool:
        """Whether an operation runs at once, on the CPU: a factory with device="cpu", or arguments from such a factory alone."""
        if func in _FACTORIES and kwargs.get("device") == "cpu":
            return True
        hosts = [value for value in tensors if self.is_host_tensor(value)]
        if not hosts or func in (torch.Tensor.to, torch.Tensor.copy_):
            return False
        if len(hosts) < len(tensors):
            raise Error(
                f"Expected an IPU tensor but got a CPU tensor (shape {tuple(hosts[0].shape)}) in {func.__name__}: make it without "
                "device='cpu', or move it with .to('ipu')."
            )
        return True

    def _run_on_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        with _disable_current_modes():
            result = func(*args, **kwargs)
        for value in pytree.tree_flatten(result)[0]:
            if isinstance(value, torch.Tensor):
                self._host_tensors[id(value)] = value
        return result

    def _warn_once(self, key: str, message: str, *values: Any) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message, *values)


def _cast_to_activation(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    activation = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
    if activation is None or activation.dtype not in (torch.float16, torch.float32):
        return args, kwargs

    def cast(value: Any) -> Any:
        is_other = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != activation.dtype
        return value.to(activation.dtype) if is_other else value

    return tuple(cast(arg) for arg in args), {key: cast(value) for key, value in kwargs.items()}


def _widen(value: Any) -> Any:
    return value.to(torch.int64) if isinstance(value, torch.Tensor) and value.dtype in _INTEGERS else value


def _widen_index(args: Tuple[Any, ...], kwargs: Dict[str, Any], position: int, name: str) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    if len(args) > position:
        args = (*args[:position], _widen(args[position]), *args[position + 1 :])
    elif name in kwargs:
        kwargs[name] = _widen(kwargs[name])
    return args, kwargs


def _one_hot(tensor: torch.Tensor, num_classes: int) -> torch.Tensor:
    """torch's own looks at the values."""
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).to(torch.int64)


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
    if func is F.ctc_loss and kwargs.get("reduction", "mean") == "none":
        raise Error("ctc_loss with reduction='none' is not supported on the IPU: use 'mean' or 'sum'.")
