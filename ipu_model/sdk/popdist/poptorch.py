"""`popdist.poptorch.Options`: options whose replicas and process numbers come from poprun."""

from __future__ import annotations

from typing import Any

import popdist
from poptorch.options import Options as _PopTorchOptions


class _Blocked:
    """A method that poprun's settings forbid."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        raise RuntimeError(f"Cannot call `{self._name}` with popdist.poptorch.Options: poprun decides it")


class Options(_PopTorchOptions):
    """poptorch.Options of one instance: replication factor and process numbers are poprun's, and cannot be set."""

    def __init__(self, ipus_per_replica: int = 1) -> None:
        super().__init__()
        if popdist.isPopdistEnvSet():
            popdist.checkNumIpusPerReplica(ipus_per_replica)
        super().replicationFactor(popdist.getNumLocalReplicas())
        self.Distributed.configureProcessId(popdist.getInstanceIndex(), popdist.getNumInstances())
        super().useIpuId(popdist.getDeviceId(ipus_per_replica))
        self._block()

    def _block(self) -> None:
        for name in ("disable", "setEnvVarNames", "configureProcessId"):
            object.__setattr__(self.Distributed, name, _Blocked(f"Distributed.{name}"))

    replicationFactor = _Blocked("replicationFactor")  # noqa: N815  PopTorch's name
    useIpuId = _Blocked("useIpuId")  # noqa: N815
