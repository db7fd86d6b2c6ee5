"""Which instance of a distributed program this is, from the variables that poprun sets. Without them: one instance, one replica."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Optional, Union

import torch

from ipu_model.runtime import torchrun
from ipu_model.runtime.instances import Instances, join

torchrun.adopt()


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def init() -> None:
    """Meet the other instances; nothing to do for one."""
    _instances()


def _instances() -> Optional[Instances]:
    return join(getInstanceIndex(), getNumInstances()) if getNumInstances() > 1 else None


def isPopdistEnvSet() -> bool:
    """Whether poprun started this process."""
    return "POPDIST_NUM_TOTAL_REPLICAS" in os.environ


def getNumTotalReplicas() -> int:
    """Replicas of all instances together."""
    return _number("POPDIST_NUM_TOTAL_REPLICAS", 1)


def getNumLocalReplicas() -> int:
    """Replicas of this instance."""
    return _number("POPDIST_NUM_LOCAL_REPLICAS", 1)


def getNumInstances() -> int:
    """Processes of the program."""
    return _number("OMPI_COMM_WORLD_SIZE", 1) if isPopdistEnvSet() else 1


def getInstanceIndex() -> int:
    """Number of this process."""
    return _number("OMPI_COMM_WORLD_RANK", 0) if isPopdistEnvSet() else 0


def getLocalInstanceIndex() -> int:
    """Number of this process on its host."""
    return _number("POPDIST_LOCAL_INSTANCE_INDEX", 0)


def getReplicaIndexOffset() -> int:
    """Number of this instance's first replica among all."""
    return _number("POPDIST_REPLICA_INDEX_OFFSET", 0)


def getNumIpusPerReplica() -> int:
    """IPUs of a replica."""
    return _number("POPDIST_NUM_IPUS_PER_REPLICA", 1)


def checkNumIpusPerReplica(num_ipus: int) -> None:
    """RuntimeError when poprun was told another number; torchrun is told none."""
    if "POPDIST_NUM_IPUS_PER_REPLICA" in os.environ and num_ipus != getNumIpusPerReplica():
        raise RuntimeError(f"The program uses {num_ipus} IPUs per replica, poprun was started with {getNumIpusPerReplica()}")


def getDeviceId(ipus_per_replica: int = 0) -> int:
    """Number of this instance's device among those of its size: that of the instance on its host."""
    return getLocalInstanceIndex()


def execute_on_instances(instances: Union[int, Iterable[int]], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function on some instances while the others wait; its result there, None elsewhere."""
    wanted = {instances} if isinstance(instances, int) else set(instances)
    result = function(*args, **kwargs) if getInstanceIndex() in wanted else None
    barrier()
    return result


def barrier() -> None:
    """Wait until all instances are here."""
    instances = _instances()
    if instances is not None:
        instances.barrier()


def allGather(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all instances, of one shape, joined along dimension 0 in the order of the instances."""
    instances = _instances()
    return tensor.detach().clone() if instances is None else instances.all_gather(tensor)


def allReduce(tensor: torch.Tensor, op: str = "sum") -> torch.Tensor:
    """Sum or mean of a tensor over all instances, added in their order; `op` is "sum" or "mean"."""
    if op not in ("sum", "mean"):
        raise ValueError(f"allReduce takes op='sum' or 'mean', got {op!r}")
    instances = _instances()
    return tensor.detach().clone() if instances is None else instances.all_reduce(tensor, op == "mean")


def broadcast(tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
    """The tensor of instance `root`; the others give one of the same shape and type."""
    if not 0 <= root < getNumInstances():
        raise ValueError(f"broadcast takes a root from 0 to {getNumInstances() - 1}, got {root}")
    instances = _instances()
    return tensor.detach().clone() if instances is None else instances.broadcast(tensor, root)
