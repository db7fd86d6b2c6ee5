"""Section 13: popdist in a process that poprun did not start, and in one that looks as if it did."""

from __future__ import annotations

import pytest
import torch

import poptorch

popdist = pytest.importorskip("popdist")
popdist_poptorch = pytest.importorskip("popdist.poptorch")


def test_without_poprun_there_is_one_instance():
    assert not popdist.isPopdistEnvSet()
    popdist.init()
    assert (popdist.getNumInstances(), popdist.getInstanceIndex()) == (1, 0)
    assert (popdist.getNumTotalReplicas(), popdist.getNumLocalReplicas()) == (1, 1)
    assert popdist.execute_on_instances({0}, lambda a, b: a + b, 1, b=2) == 3


def test_options_belong_to_poprun():
    options = popdist_poptorch.Options(ipus_per_replica=1)
    assert (options.replication_factor, options.Distributed.numProcesses, options.Distributed.processId) == (1, 1, 0)
    for name, call in {
        "useIpuId": lambda o: o.useIpuId(1),
        "replicationFactor": lambda o: o.replicationFactor(2),
        "Distributed.disable": lambda o: o.Distributed.disable(),
        "Distributed.setEnvVarNames": lambda o: o.Distributed.setEnvVarNames("A", "B"),
        "Distributed.configureProcessId": lambda o: o.Distributed.configureProcessId(0, 1),
    }.items():
        for owner in (options, options.clone()):
            with pytest.raises(RuntimeError, match=f"Cannot call `{name}` with popdist.poptorch.Options"):
                call(owner)


def test_options_as_a_dict_stay_as_frozen_as_they_were():
    options = popdist_poptorch.Options().outputMode(poptorch.OutputMode.All)
    assert options.toDict()["num_distributed_processes"] == 1
    options.deviceIterations(2)
    poptorch.inferenceModel(torch.nn.Identity(), options)
    options.toDict()
    with pytest.raises(AttributeError, match="Can't modify frozen Options"):
        options.deviceIterations(3)


def test_numbers_come_from_the_environment(monkeypatch):
    for name, value in dict(
        POPDIST_NUM_TOTAL_REPLICAS=8, POPDIST_NUM_LOCAL_REPLICAS=4, POPDIST_NUM_IPUS_PER_REPLICA=2, POPDIST_REPLICA_INDEX_OFFSET=4,
        POPDIST_LOCAL_INSTANCE_INDEX=1, OMPI_COMM_WORLD_SIZE=2, OMPI_COMM_WORLD_RANK=1,
    ).items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert popdist.isPopdistEnvSet()
    assert (popdist.getNumTotalReplicas(), popdist.getNumLocalReplicas(), popdist.getReplicaIndexOffset()) == (8, 4, 4)
    options = popdist_poptorch.Options(ipus_per_replica=2)
    assert (options.replication_factor, options.Distributed.numProcesses, options.Distributed.processId) == (4, 2, 1)
    with pytest.raises(RuntimeError):
        popdist.checkNumIpusPerReplica(4)
