"""Which instance of a distributed program this is, from the variables that poprun sets. Without them: one instance, one replica."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Union

from ipu_model.runtime.errors import absent


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def init() -> None:
    """Join the other instances; nothing to do for one.

    Raises:
        NotImplementedError: there are several.
    """
    if getNumInstances() > 1:
        raise absent("popdist over several instances", "one instance with several replicas")


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
    """RuntimeError when poprun was told another number."""
    if num_ipus != getNumIpusPerReplica():
        raise RuntimeError(f"The program uses {num_ipus} IPUs per replica, poprun was started with {getNumIpusPerReplica()}")


def getDeviceId(ipus_per_replica: int = 0) -> int:
    """Number of this instance's device among those of its size: that of the instance on its host."""
    return getLocalInstanceIndex()


def execute_on_instances(instances: Union[int, Iterable[int]], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function on some instances while the others wait; its result there, None elsewhere."""
    wanted = {instances} if isinstance(instances, int) else set(instances)
    return function(*args, **kwargs) if getInstanceIndex() in wanted else None
