"""Parameters of which each group of replicas has a value of its own."""

from __future__ import annotations

import operator
from typing import Any, Callable

import torch

from ipu_model.runtime.errors import Error, absent
from ipu_model.runtime.gradients.reduction import ReplicaGroups

from ..enums import CommGroupType, VariableRetrievalMode


class ParameterProxy:
    """A parameter of the user's model as `executor.name` gives it: the parameter, with `replicaGrouping`."""

    def __init__(self, executor: Any, name: str, parameter: torch.nn.Parameter) -> None:
        self._executor, self._name, self._parameter = executor, name, parameter

    def replicaGrouping(
        self, comm_group_type: CommGroupType, shards: int, variable_retrieval_mode: VariableRetrievalMode
    ) -> ParameterProxy:
        """Give each group of `shards` replicas its own value: the parameter has one slice for each group along dimension 0.

        Raises:
            Error: the model is compiled, the parameter is a scalar, or its first dimension is not the number of groups.
        """
        replicas = self._executor.options.replication_factor
        if self._executor.isCompiled():
            raise Error(f"replicaGrouping of {self._name} comes too late: the model is compiled.")
        if self._parameter.dim() == 0:
            raise Error(f"replicaGrouping: {self._name} is a scalar, expected one slice for each group along dimension 0.")
        if variable_retrieval_mode == VariableRetrievalMode.AllReplicas:
            raise absent("VariableRetrievalMode.AllReplicas", "VariableRetrievalMode.OnePerGroup")
        if comm_group_type == CommGroupType.All:
            self._executor._groups_by_name.pop(self._name, None)
            return self
        size = 1 if comm_group_type == CommGroupType.NoGrouping else shards
        if size < 1 or replicas % size:
            raise Error(f"replicaGrouping: groups of {size} replicas do not divide replicationFactor {replicas}.")
        if self._parameter.shape[0] != replicas // size:
            raise Error(
                f"replicaGrouping: {self._name} has {self._parameter.shape[0]} slices along dimension 0, expected one for each of "
                f"{replicas // size} groups."
            )
        if self._executor.options.Distributed.numProcesses > 1:
            raise absent("replicaGrouping over several instances", "one instance with all replicas")
        groups = ReplicaGroups(replicas // size, replicas, comm_group_type == CommGroupType.Orthogonal)
        self._executor._groups_by_name[self._name] = groups
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
