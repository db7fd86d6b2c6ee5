"""`popdist.poptorch.Options`: options whose replicas and process numbers come from poprun."""

from __future__ import annotations

from typing import Any

import popdist
from poptorch.options import Options as _PopTorchOptions, _DistributedOptions


class _Blocked:
    """A method that poprun's settings forbid."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        raise RuntimeError(f"Cannot call `{self._name}` with popdist.poptorch.Options: poprun decides it")


class _PoprunNumbers(_DistributedOptions):
    """Which instance this is, as poprun says."""

    def __init__(self) -> None:
        super().__init__()
        super().configureProcessId(popdist.getInstanceIndex(), popdist.getNumInstances())

    disable = _Blocked("Distributed.disable")
    setEnvVarNames = _Blocked("Distributed.setEnvVarNames")  # noqa: N815  PopTorch's name
    configureProcessId = _Blocked("Distributed.configureProcessId")  # noqa: N815


class Options(_PopTorchOptions):
    """poptorch.Options of one instance: replication factor and process numbers are poprun's, and cannot be set."""

    distributed_options = _PoprunNumbers

    def __init__(self, ipus_per_replica: int = 1) -> None:
        super().__init__()
        if popdist.isPopdistEnvSet():
            popdist.checkNumIpusPerReplica(ipus_per_replica)
        super().replicationFactor(popdist.getNumLocalReplicas())
        super().useIpuId(popdist.getDeviceId(ipus_per_replica))

    replicationFactor = _Blocked("replicationFactor")  # noqa: N815  PopTorch's name
    useIpuId = _Blocked("useIpuId")  # noqa: N815
