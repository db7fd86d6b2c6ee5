"""Section 7: blocks, stages, execution strategies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import poptorch


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x):
        return poptorch.identity_loss(self.c(self.b(self.a(x))).sum(), reduction="none")


def blocks(model, ids=(0, 1, 2)):
    for name, ipu in zip("abc", ids):
        poptorch.BeginBlock(getattr(model, name), name, ipu_id=ipu)
    return model


def run(model, accumulation=5, strategy=None, is_rounded=True):
    options = poptorch.Options().autoRoundNumIPUs(is_rounded)
    options.Training.gradientAccumulation(accumulation)
    if strategy is not None:
        options.setExecutionStrategy(strategy)
    return poptorch.trainingModel(model, options)(torch.ones(accumulation, 2))


def test_blocks_never_change_values():
    torch.manual_seed(0)
    plain = Three()
    annotated = blocks(copy.deepcopy(plain))
    assert torch.equal(run(plain), run(annotated))


def test_a_training_pipeline_needs_enough_micro_batches():
    with pytest.raises(poptorch.Error, match=r"Training.gradientAccumulation must be greater.* 5 .*it is 4"):
        run(blocks(Three()), accumulation=4)
    run(blocks(Three()), accumulation=4, strategy=poptorch.ShardedExecution())


def test_an_inference_pipeline_needs_enough_iterations():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for index in range(2):
        poptorch.BeginBlock(model[index], ipu_id=index)
    with pytest.raises(poptorch.Error, match="deviceIterations must be greater"):
        poptorch.inferenceModel(model)(torch.ones(1, 2))


def test_ipus_come_in_powers_of_two():
    with pytest.raises(poptorch.Error, match="The model specifies the"):
        run(blocks(Three()), is_rounded=False)


def test_operations_outside_of_blocks_are_refused():
    model = Three()
    poptorch.BeginBlock(model.b, "b", ipu_id=0)
    with pytest.raises(poptorch.Error, match="No active Block"):
        run(model)


def test_a_module_begins_one_block():
    layer = poptorch.BeginBlock(nn.Linear(2, 2), ipu_id=0)
    with pytest.raises(poptorch.Error, match="module has already been"):
        poptorch.BeginBlock(layer, ipu_id=1)
    poptorch.removeBlocks(layer)
    poptorch.BeginBlock(layer, ipu_id=1)
    with pytest.raises(poptorch.Error):
        poptorch.BeginBlock(3)


def test_annotated_modules_copy_pickle_and_keep_their_keys():
    layer = nn.Linear(2, 2)
    keys = list(layer.state_dict())
    poptorch.BeginBlock(layer, "x", ipu_id=1)
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert list(duplicate.state_dict()) == keys
        assert [hook.ipu_id for hook in duplicate._forward_pre_hooks.values()] == [1]


def test_listed_stages():
    strategy = poptorch.PipelinedExecution(poptorch.Stage("a").ipu(0), ["b"], "c")
    assert strategy.stage("b").blocks == ["b"]
    run(blocks(Three(), (None, None, None)), strategy=strategy)
    with pytest.raises(AssertionError):
        strategy.stage("z")
    with pytest.raises(AssertionError, match="in two stages"):
        poptorch.PipelinedExecution("a", ["a"])
    with pytest.raises(AssertionError, match="unknown block 'c'"):
        run(blocks(Three()), strategy=poptorch.PipelinedExecution("a", "b"))
    with pytest.raises(AssertionError):
        poptorch.Stage(3)


def test_same_as_ipu_needs_an_ipu():
    with pytest.raises(AssertionError, match="needs an ipu_id"):
        run(blocks(Three(), (0, None, 1)))


def test_scopes_and_functions_begin_blocks():
    class Scoped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        @poptorch.BlockFunction("second", ipu_id=1)
        def second(self, x):
            return poptorch.identity_loss(self.b(x).sum(), reduction="none")

        def forward(self, x):
            with poptorch.Block("first", ipu_id=0):
                x = self.a(x)
            return self.second(x)

    with pytest.raises(poptorch.Error, match="must be greater.* 3 "):
        run(Scoped(), accumulation=2)
    assert run(Scoped(), accumulation=3).dim() == 0


# ---- phases


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


def test_more_than_64_ipus_are_refused():
    with pytest.raises(poptorch.Error, match="Too many IPUs requested"):
        run(blocks(Three(), (0, 1, 64)), accumulation=5)


def test_blocks_do_nothing_on_the_host():
    model = blocks(Three())
    with poptorch.Block("x", ipu_id=3):
        assert model(torch.ones(1, 2)).dim() == 0
    poptorch.Block.useAutoId()


def test_callables_begin_blocks():
    doubled = poptorch.BeginBlock(lambda x: x * 2, "first", ipu_id=0)
    assert poptorch.inferenceModel(lambda x: doubled(x))(torch.ones(1)).item() == 2
