"""Section 14: the names of popart that programs pass on."""

from __future__ import annotations

import pytest

import poptorch

popart = pytest.importorskip("popart")


@pytest.mark.parametrize(
    ("enumeration", "members"),
    [
        ("SyntheticDataMode", dict(Off=0, Zeros=1, RandomNormal=2)),
        ("RecomputationType", {"NoRecompute": 0, "Standard": 1, "NormOnly": 2, "Pipeline": 3, "RecomputeAll": 4}),
        ("AccumulateOuterFragmentSchedule", dict(Scheduler=0, Serial=1, OverlapCycleOptimized=2, OverlapMemoryOptimized=3)),
        ("SubgraphCopyingStrategy", dict(OnEnterAndExit=0, JustInTime=1)),
        ("VirtualGraphMode", dict(Off=0, Manual=1, Auto=2, ExecutionPhases=3)),
        ("MergeVarUpdateType", dict(Off=0, All=1, AutoLoose=2, AutoTight=3)),
        ("Instrumentation", dict(Outer=0, Inner=1)),
    ],
)
def test_numbers(enumeration, members):
    for name, number in members.items():
        assert int(getattr(getattr(popart, enumeration), name)) == number


def test_programs_pass_them_as_numbers():
    options = poptorch.Options()
    options._Popart.set("autoRecomputation", int(popart.RecomputationType.Pipeline))
    options.enableSyntheticData(int(popart.SyntheticDataMode.RandomNormal))
    assert options._Popart.options["syntheticDataMode"] == 2
    popart.getLogger().setLevel("DEBUG")
    assert popart.versionString()
