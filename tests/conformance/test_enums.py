"""Section 10: enumerations and their numbers."""

from __future__ import annotations

from enum import Enum, IntEnum

import pytest

import poptorch

NUMBERS = {
    "OutputMode": dict(Final=0, EveryN=1, All=2, Sum=3, Default=4),
    "DataLoaderMode": dict(Sync=0, Async=1, AsyncRebatched=2),
    "SharingStrategy": dict(SharedMemory=0, FileSystem=1, Fork=2, ForkServer=3),
    "ReductionType": dict(Sum=0, Mean=1, NoReduction=2),
    "MeanReductionStrategy": dict(Running=0, Post=1, PostAndLoss=2),
    "ConnectionType": dict(Always=0, OnDemand=1, Never=2),
    "SyncPattern": dict(Full=0, SinglePipeline=1, ReplicaAndLadder=2),
    "AutoStage": dict(SameAsIpu=0, AutoIncrement=1),
    "Liveness": dict(AlwaysLive=0, OffChipAfterFwd=1, OffChipAfterFwdNoOverlap=2, OffChipAfterEachPhase=3),
    "HalfFloatCastingBehavior": dict(FloatDowncastToHalf=0, HalfUpcastToFloat=1, Default=2),
    "MultiConvPlanType": dict(Parallel=0, Serial=1),
    "CommGroupType": dict(All=0, Consecutive=1, Orthogonal=2, NoGrouping=3),
    "VariableRetrievalMode": dict(OnePerGroup=0, AllReplicas=2),
    "MatMulSerializationMode": dict(
        InputChannels="input_channels", ReducingDim="reducing_dim", OutputChannels="output_channels", Disabled="none"
    ),
    "OverlapMode": dict(
        NoOverlap="no_overlap",
        OverlapAccumulationLoop="overlap_accumulation_loop",
        OverlapDeviceIterationLoop="overlap_device_iteration_loop",
    ),
}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_members_and_values(name):
    members = getattr(poptorch, name)
    assert {member.name: member.value for member in members} == NUMBERS[name]
    assert getattr(poptorch.enums, name) is members
    is_plain = isinstance(next(iter(NUMBERS[name].values())), str)
    assert issubclass(members, Enum) and issubclass(members, IntEnum) != is_plain
