"""Tensors on the CPU inside forward: plain attributes, globals, closures, and those asked for with device="cpu".

Operations among them alone run at once, on the CPU, while capturing. Where one meets the device its value of that moment is a constant
of the graph.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import Error
from ..rounding import narrow_dtype
from ..structures import map_leaves, tensors_in

logger = logging.getLogger("poptorch::python")
_FUNC: Any = torch._C._functorch  # type: ignore[attr-defined]  # tensors of torch.func
_MOVES = (torch.Tensor.to, torch.Tensor.type_as)


def is_host_tensor(value: Any) -> bool:
    """Whether a value is a tensor with numbers of its own: all that is on the device is known by shape alone while capturing."""
    if not isinstance(value, torch.Tensor) or isinstance(value, FakeTensor) or value.is_meta:
        return False
    return not (_FUNC.is_batchedtensor(value) or _FUNC.is_gradtrackingtensor(value))


class HostTensors:
    """The CPU's side of one capture.

    Args:
        device: where the graph runs.
        registered: the device's tensors by the `id` of the parameters and buffers that they stand for.
    """

    def __init__(self, device: torch.device, registered: Optional[Mapping[int, torch.Tensor]] = None) -> None:
        self._device = device
        self._registered = registered or {}
        self._made_inside: Set[int] = set()
        self._constants: Dict[int, Tuple[torch.Tensor, torch.Tensor]] = {}  # by id: the value when it was last met, and on the device
        self._kept: List[torch.Tensor] = []  # keeps ids unique
        self._warned: Set[str] = set()

    def registered_on_device(self, args: Any, kwargs: Dict[str, Any]) -> Tuple[Any, Dict[str, Any]]:
        """Parameters and buffers are the device's, by whatever way forward got hold of them."""
        if not any(id(value) in self._registered for value in tensors_in((args, kwargs))):
            return args, kwargs
        return map_leaves(lambda value: self._registered.get(id(value), value), (args, kwargs))

    def run(self, func: Any, args: Any, kwargs: Dict[str, Any], asks_for_cpu: bool) -> Any:
        """Run an operation on the CPU, at once."""
        is_made_inside = asks_for_cpu or any(id(value) in self._made_inside for value in tensors_in((args, kwargs)))
        with _disable_current_modes():
            result = func(*args, **kwargs)
        if is_made_inside:
            results = tensors_in(result)
            self._made_inside |= {id(value) for value in results}
            self._kept += results
        return result

    def upload(self, value: torch.Tensor) -> torch.Tensor:
        """A tensor of the device with the present value of one on the CPU."""
        return self._constant(value).clone()

    def constants(self, args: Any, kwargs: Dict[str, Any]) -> Tuple[Any, Dict[str, Any]]:
        """Arguments with constants for those that are on the CPU."""
        return map_leaves(lambda value: self._constant(value) if is_host_tensor(value) else value, (args, kwargs))

    def meet(self, func: Any, args: Any, kwargs: Dict[str, Any]) -> Tuple[Any, Dict[str, Any]]:
        """Arguments of an operation of the device, with constants for those that are on the CPU.

        Raises:
            Error: forward made one of them on the CPU.
        """
        hosts = [value for value in tensors_in((args, kwargs)) if is_host_tensor(value)]
        if not hosts:
            return args, kwargs
        is_move = func in _MOVES or func is torch.Tensor.copy_
        for value in hosts:
            if id(value) in self._made_inside and not is_move:
                raise Error(
                    f"Expected an IPU tensor but got a CPU tensor (shape {tuple(value.shape)}) in {func.__name__}: make it without "
                    "device='cpu', or move it with .to('ipu')."
                )
        if not is_move:
            self._warn(func.__name__, hosts[0])
        return self.constants(args, kwargs)

    def _constant(self, value: torch.Tensor) -> torch.Tensor:
        with _disable_current_modes():
            now = narrow_dtype(value.detach()).cpu()
            known = self._constants.get(id(value))
            if known is None or known[0].dtype != now.dtype or not torch.equal(known[0], now):
                snapshot = now.clone()
                known = (snapshot, snapshot.to(self._device))
                self._constants[id(value)] = self._constants[id(known[1])] = known
                self._kept.append(value)
        return known[1]

    def in_backward(self) -> TorchDispatchMode:
        """The same for the backward passes of autograd functions, which modes over torch's functions do not see."""
        return _HostOperations(self)

    def _warn(self, name: str, value: torch.Tensor) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "A CPU tensor (shape %s) meets IPU tensors in %s: here it is a constant of the graph, on an IPU an error. Move it with "
                ".to(x.device), or make it a buffer of its module.", tuple(value.shape), name,
            )  # fmt: skip


class _HostOperations(TorchDispatchMode):
    """Runs operations on the CPU's tensors alone at once; where one meets the device it is a constant."""

    def __init__(self, host: HostTensors) -> None:
        super().__init__()
        self._host = host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_in((args, kwargs))
        if not any(is_host_tensor(value) for value in tensors) or "lift_fresh" in func.name():
            return func(*args, **kwargs)
        if all(is_host_tensor(value) for value in tensors):
            return self._host.run(func, args, kwargs, False)
        args, kwargs = self._host.constants(args, kwargs)
        return func(*args, **kwargs)
