"""From a forward pass in torch to records: the one file of this package that knows torch."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ...program.ops import Op, Tensor

_VIEWS = set(
    """view _unsafe_view reshape expand unsqueeze squeeze t transpose permute slice select detach alias split split_with_sizes chunk
    unbind as_strided unfold flatten lift_fresh lift_fresh_copy movedim view_as_real diagonal""".split()
)
_NAMES_BY_KIND = {
    "conv": "convolution _convolution",
    "matmul": "mm addmm bmm baddbmm",
    "norm": """native_group_norm native_layer_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm
        _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update""",
    "reduce": """mean sum amax amin max min argmax argmin var var_mean std prod logsumexp any all linalg_vector_norm cumsum""",
    "cast": "_to_copy",
    "copy": """clone cat stack copy_ roll index index_select gather scatter scatter_add index_put embedding repeat constant_pad_nd flip
        zeros ones full zeros_like ones_like full_like empty empty_like new_zeros new_ones new_full new_empty arange fill_ zero_
        linspace scalar_tensor""",
    "random": "bernoulli_ bernoulli rand rand_like randn randn_like native_dropout randint randperm uniform_ normal_",
    "pool": "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d max_pool2d",
}
_KINDS = {name: kind for kind, names in _NAMES_BY_KIND.items() for name in names.split()}


class OpRecorder(TorchDispatchMode):
    """Records the operations that torch runs, as `Op`s.

    Args:
        parameters: tensors of the model by id, and whether they are trained; buffers are parameters that are not.
        current_block: tells the number of the block under way.
        current_path: tells the path of the module under way.
    """

    def __init__(self, parameters: Dict[int, bool], current_block: Callable[[], int], current_path: Callable[[], str]) -> None:
        super().__init__()
        self.ops: List[Op] = []
        self.first_use: Dict[int, int] = {}  # parameter id -> block
        self._written: Set[int] = set()
        self._sources: Set[int] = set()
        self._parameters = parameters
        self._current_block, self._current_path = current_block, current_path
        self._from_parameters: Set[int] = set(parameters)
        self._with_gradient: Set[int] = {key for key, is_trained in parameters.items() if is_trained}
        self._origin: Dict[int, Set[int]] = {key: {key} for key in parameters}
        self._storage: Dict[int, int] = {}  # id of a tensor -> number of the tensor that it is a view of
        self._constants: Dict[int, torch.Tensor] = {}
        self._kept: List[Any] = []  # keeps ids unique

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(self._shape_only, (args, dict(kwargs or {})))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        operands = [value for value in pytree.tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        results = [value for value in pytree.tree_flatten(result)[0] if isinstance(value, torch.Tensor)]
        if results:
            self._follow(operands, results)
            self._share(operands, results, name in _VIEWS or name.endswith("_"))
            if name not in _VIEWS:
                self._record(name, args, operands, results[0])
        return result

    def _shape_only(self, value: Any) -> Any:
        """Constants made outside of forward have values: only their shapes are of interest."""
        if not isinstance(value, torch.Tensor) or value.is_meta:
            return value
        if id(value) not in self._constants:
            self._constants[id(value)] = as_meta(value)
            self._kept.append(value)
        return self._constants[id(value)]

    def _follow(self, operands: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> None:
        self._kept += results
        is_constant = bool(operands) and all(id(value) in self._from_parameters for value in operands)
        has_gradient = any(id(value) in self._with_gradient for value in operands)
        origin = set().union(*(self._origin.get(id(value), set()) for value in operands)) if is_constant else set()
        for value in results:
            if is_constant:
                self._from_parameters.add(id(value))
                self._origin[id(value)] = origin
            if has_gradient and value.is_floating_point():
                self._with_gradient.add(id(value))
        for key in origin | {id(value) for value in operands if id(value) in self._parameters}:
            self.first_use.setdefault(key, self._current_block())

    def _share(self, operands: Sequence[torch.Tensor], results: Sequence[torch.Tensor], is_alias: bool) -> None:
        for value in results:
            own = len(self._storage)
            self._storage[id(value)] = self._number(operands[0]) if is_alias and operands else own

    @property
    def sources(self) -> Tuple[int, ...]:
        """Numbers of the tensors that were read before anything wrote them: inputs, and constants."""
        return tuple(sorted(self._sources))

    def _number(self, tensor: torch.Tensor) -> int:
        return self._storage.setdefault(id(tensor), len(self._storage))

    def _record(self, name: str, args: Any, operands: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        parameters = [value for value in operands if id(value) in self._from_parameters]
        inputs = [value for value in operands if id(value) not in self._from_parameters]
        # A model's own operator that is named like torch's group norm, and has its arguments, costs what that costs.
        default = "norm" if name.endswith("group_norm") else "elementwise"
        kind = _KINDS.get(name, _KINDS.get(name.rstrip("_"), default))
        reads, writes = tuple(self._number(value) for value in inputs), self._number(output)
        self._sources.update(number for number in reads if number not in self._written)
        self._written.add(writes)
        shape: Dict[str, Any] = {}
        if kind == "conv":
            shape = dict(groups=args[8], kernel=tuple(operands[1].shape[2:]), stride=tuple(args[3]))
        elif name.endswith("group_norm"):
            shape = dict(groups=args[6])
        elif "batch_norm" in name and not any(args[5:6]):
            name = "folded_batch_norm"  # with its stored statistics it becomes part of the convolution before it
        self.ops.append(
            Op(
                kind=kind,
                name=name.rstrip("_"),
                path=self._current_path(),
                block=self._current_block(),
                inputs=tuple(describe(value) for value in inputs),
                parameters=tuple(describe(value) for value in parameters),
                output=describe(output),
                is_once_per_update=not inputs and bool(parameters),
                input_gradients=sum(id(value) in self._with_gradient for value in inputs),
                parameter_gradients=sum(id(value) in self._with_gradient for value in parameters),
                reads=reads,
                writes=writes,
                **shape,
            )
        )


def as_meta(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, strides and type, without data."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def describe(tensor: torch.Tensor) -> Tensor:
    """Shape and type of a tensor."""
    return Tensor(tuple(tensor.shape), str(tensor.dtype).replace("torch.", ""))


@contextlib.contextmanager
def module_paths(model: torch.nn.Module) -> Iterator[Callable[[], str]]:
    """While inside, the function given tells which module of the model runs."""
    names = {id(module): name for name, module in model.named_modules()}
    running: List[str] = [""]

    def enter(module: torch.nn.Module, inputs: Any) -> None:
        running.append(names.get(id(module), running[-1]))

    def leave(module: torch.nn.Module, inputs: Any, outputs: Any) -> Optional[Any]:
        running.pop()
        return None

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield lambda: running[-1]
    finally:
        for handle in handles:
            handle.remove()
