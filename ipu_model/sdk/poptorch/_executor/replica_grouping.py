"""Parameters of which each group of replicas has a value of its own."""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict

import torch

from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.errors import Error, absent
from ipu_model.runtime.gradients.reduction import ReplicaGroups

from ..enums import CommGroupType, VariableRetrievalMode


class ParameterGroups:
    """Which parameters have groups; fixed while the model is compiled."""

    def __init__(self, settings: RunSettings) -> None:
        self._num_replicas = settings.layout.replication_factor
        self._num_processes = settings.num_processes
        self.by_name: Dict[str, ReplicaGroups] = {}
        self.is_fixed = False

    def group(self, name: str, parameter: torch.nn.Parameter, kind: CommGroupType, shards: int, mode: VariableRetrievalMode) -> None:
        """Give each group of `shards` replicas its own value: the parameter has one slice for each group along dimension 0.

        Raises:
            Error: the model is compiled, the parameter is a scalar, or its first dimension is not the number of groups.
        """
        replicas = self._num_replicas
        if self.is_fixed:
            raise Error(f"replicaGrouping of {name} comes too late: the model is compiled.")
        if parameter.dim() == 0:
            raise Error(f"replicaGrouping: {name} is a scalar, expected one slice for each group along dimension 0.")
        if mode == VariableRetrievalMode.AllReplicas:
            raise absent("VariableRetrievalMode.AllReplicas", "VariableRetrievalMode.OnePerGroup")
        if kind == CommGroupType.All:
            self.by_name.pop(name, None)
            return
        size = 1 if kind == CommGroupType.NoGrouping else shards
        if size < 1 or replicas % size:
            raise Error(f"replicaGrouping: groups of {size} replicas do not divide replicationFactor {replicas}.")
        if parameter.shape[0] != replicas // size:
            raise Error(
                f"replicaGrouping: {name} has {parameter.shape[0]} slices along dimension 0, expected one for each of "
                f"{replicas // size} groups."
            )
        if self._num_processes > 1:
            raise absent("replicaGrouping over several instances", "one instance with all replicas")
        self.by_name[name] = ReplicaGroups(replicas // size, replicas, kind == CommGroupType.Orthogonal)

    def one_replicas(self, parameters: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Parameters as one replica sees them."""
        return {name: value[0] if name in self.by_name else value for name, value in parameters.items()}


class ParameterProxy:
    """A parameter of the user's model as `executor.name` gives it: the parameter, with `replicaGrouping`."""

    def __init__(self, groups: ParameterGroups, name: str, parameter: torch.nn.Parameter) -> None:
        self._groups, self._name, self._parameter = groups, name, parameter

    def replicaGrouping(
        self, comm_group_type: CommGroupType, shards: int, variable_retrieval_mode: VariableRetrievalMode
    ) -> ParameterProxy:
        """Give each group of `shards` replicas its own value of the parameter."""
        self._groups.group(self._name, self._parameter, comm_group_type, shards, variable_retrieval_mode)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parameter, name)

    def __repr__(self) -> str:
        return repr(self._parameter)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [arg._parameter if isinstance(arg, ParameterProxy) else arg for arg in args]
        return func(*plain, **(kwargs or {}))


def _forwarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: ParameterProxy, *others: Any) -> Any:
        return function(self._parameter, *[other._parameter if isinstance(other, ParameterProxy) else other for other in others])

    return call


# Python looks operators up on the class, past __getattr__.
for _name in ("add", "sub", "mul", "truediv", "matmul", "neg", "eq", "ne", "lt", "le", "gt", "ge", "getitem"):
    setattr(ParameterProxy, f"__{_name}__", _forwarded(getattr(operator, _name)))
ParameterProxy.__hash__ = lambda self: id(self._parameter)  # type: ignore[method-assign]
setattr(ParameterProxy, "__len__", _forwarded(len))  # noqa: B010
