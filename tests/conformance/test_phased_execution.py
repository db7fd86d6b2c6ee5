"""Sections 7.2, 7.3, 18.4 and 18.6: phased execution."""

from __future__ import annotations

import copy

import pytest
import torch
from shared_blocks import Three, blocks, run

import poptorch


def test_phases_are_stages_or_names_of_blocks():
    phase = poptorch.Phase(poptorch.Stage("a"), poptorch.Stage("b")).ipus(2, 3)
    assert phase.stage(1).blocks == ["b"]
    assert poptorch.Phase("a", "b").stage(0).blocks == ["a", "b"]
    with pytest.raises(AssertionError):
        poptorch.Phase("a", poptorch.Stage("b"))
    with pytest.raises(AssertionError):
        phase.ipus(1)


@pytest.mark.parametrize("kind", [poptorch.SerialPhasedExecution, poptorch.ParallelPhasedExecution])
def test_phased_execution_changes_no_value(kind):
    torch.manual_seed(0)
    plain = Three()
    annotated = blocks(copy.deepcopy(plain), (None, None, None))
    strategy = kind("a", [poptorch.Stage("b")], [["c"]])
    assert strategy.phase(1).stage(0).blocks == ["b"]
    assert torch.equal(run(plain, accumulation=1), run(annotated, accumulation=1, strategy=strategy))


def test_phased_execution_checks_its_settings():
    with pytest.raises(AssertionError):
        poptorch.SerialPhasedExecution()
    with pytest.raises(AssertionError):
        poptorch.SerialPhasedExecution("a", ["a"])
    with pytest.raises(AssertionError):
        poptorch.SerialPhasedExecution("a").phase(-1)
    with pytest.raises(AssertionError):
        poptorch.SerialPhasedExecution("a").setTensorsLiveness(3)
    poptorch.SerialPhasedExecution("a").setTensorsLiveness(poptorch.Liveness.AlwaysLive)
    poptorch.ParallelPhasedExecution("a").useSeparateBackwardPhase(True)
    poptorch.ParallelPhasedExecution("a").sendTensorsOffChipAfterFwd(True)
    with pytest.raises(AssertionError, match="unknown block 'c'"):
        run(blocks(Three()), strategy=poptorch.SerialPhasedExecution("a", "b"))


def test_one_phase_is_given_in_any_form():
    stage = poptorch.Stage("b")
    strategy = poptorch.SerialPhasedExecution("a", stage, [poptorch.Stage("c"), poptorch.Stage("d")], ["e", "f"], poptorch.Phase("g"))
    assert [[s.blocks for s in strategy.phase(i).stages] for i in range(5)] == [[["a"]], [["b"]], [["c"], ["d"]], [["e", "f"]], [["g"]]]


@pytest.mark.parametrize(("ipus", "is_refused"), [((0, 1, 2), False), ((2, 3, 0), False), ((0, 2, 0), True), ((1, 1, 0), True)])
def test_parallel_phases_alternate_between_even_and_odd_ipus(ipus, is_refused):
    strategy = poptorch.ParallelPhasedExecution("a", "b", "c")
    if not is_refused:
        run(blocks(Three(), ipus), accumulation=1, strategy=strategy)
        return
    with pytest.raises(poptorch.Error, match="even IPUs|odd IPUs"):
        run(blocks(Three(), ipus), accumulation=1, strategy=strategy)
