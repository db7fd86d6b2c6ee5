"""Section 7: blocks, stages, execution strategies."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from shared_blocks import Three, blocks, run
from torch import nn

import poptorch


def test_blocks_never_change_values():
    torch.manual_seed(0)
    plain = Three()
    annotated = blocks(copy.deepcopy(plain))
    assert torch.equal(run(plain), run(annotated))


def test_a_training_pipeline_needs_enough_micro_batches():
    opening = r"Training.gradientAccumulation must be greater than or equal to the number of pipeline stages \(5\)"
    with pytest.raises(poptorch.Error, match=f"{opening}.*PipelinedExecution.*it is 4"):
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


def test_operations_before_the_first_block_run_on_ipu_0():
    torch.manual_seed(0)
    plain = Three()
    model = copy.deepcopy(plain)
    poptorch.BeginBlock(model.b, "b", ipu_id=1)  # model.a stays on IPU 0
    assert torch.equal(run(model, accumulation=3), run(plain, accumulation=3))
    with pytest.raises(poptorch.Error, match=r"number of pipeline stages \(3\)"):
        run(model_with_second_block(ipu=1), accumulation=2)
    run(model_with_second_block(ipu=0), accumulation=1)


def model_with_second_block(ipu):
    model = Three()
    poptorch.BeginBlock(model.b, "b", ipu_id=ipu)
    return model


def test_a_first_block_on_ipu_1_counts_two_stages_whatever_runs_on_ipu_0():
    with pytest.raises(poptorch.Error, match=r"number of pipeline stages \(3\)"):
        run(poptorch.BeginBlock(Three(), "all", ipu_id=1), accumulation=2)
    run(poptorch.BeginBlock(Three(), "all", ipu_id=1), accumulation=3)
    with pytest.raises(poptorch.Error, match=r"deviceIterations must be greater than or equal to the number of pipeline stages \(2\)"):
        poptorch.inferenceModel(poptorch.BeginBlock(nn.Linear(2, 2), ipu_id=1))(torch.ones(1, 2))


@pytest.mark.parametrize("leaves", ["inner", "outer"])
def test_operations_behind_a_closed_scope_are_refused(leaves):
    class Scoped(nn.Module):
        def forward(self, x):
            with poptorch.Block("outer", ipu_id=0):
                with poptorch.Block("inner", ipu_id=0):
                    x = x * 2
                if leaves == "inner":  # leaving the inner scope ends the outer one too
                    x = x + 1
            return x if leaves == "inner" else x + 1

    with pytest.raises(poptorch.Error, match="No active Block"):
        poptorch.inferenceModel(Scoped())(torch.ones(1))


def test_a_begun_block_never_closes():
    class Begun(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = poptorch.BeginBlock(nn.Linear(1, 1), "layer", ipu_id=0)

        def forward(self, x):
            with poptorch.Block("scope", ipu_id=0):
                x = x * 2
            x = self.layer(x) + 1
            poptorch.Block.start("last", ipu_id=0)
            return x * 2

    assert poptorch.inferenceModel(Begun())(torch.ones(1, 1)).shape == (1, 1)


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
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    for duplicate in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert list(duplicate.state_dict()) == keys
        assert poptorch.module_repr(duplicate).startswith("BeginBlock(user_id=x, ipu_id=1) Linear(")
        with pytest.raises(poptorch.Error, match="module has already been"):
            poptorch.BeginBlock(duplicate)
    poptorch.removeBlocks(loaded)
    assert poptorch.module_repr(loaded) == repr(nn.Linear(2, 2)) and poptorch.module_repr(layer).startswith("BeginBlock")


def test_annotated_modules_are_loaded_by_a_process_that_only_imported_poptorch(tmp_path):
    torch.save(poptorch.BeginBlock(nn.Linear(2, 2), ipu_id=3), tmp_path / "layer.pt")
    code = "import {}poptorch, torch; print(poptorch.module_repr(torch.load({!r}, weights_only=False)))"
    importing = "ipu_model; import " if "ipu_model" in sys.modules else ""
    command = [sys.executable, "-c", code.format(importing, str(tmp_path / "layer.pt"))]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert text.startswith("BeginBlock(user_id=None, ipu_id=3) Linear(")


def test_all_hooks_stand_before_the_class_name_of_a_module_and_of_its_parts(capsys):
    class Hook:
        def __call__(self, module, inputs):
            pass

        def __repr__(self):
            return "Hook()"

    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU()))
    poptorch.BeginBlock(model, "whole", ipu_id=0)
    poptorch.BeginBlock(model[1][0], 7)
    model[1].register_forward_pre_hook(Hook())
    expected = (
        "BeginBlock(user_id=whole, ipu_id=0) Sequential(\n  (0): ReLU()\n  (1): Hook() Sequential(\n"
        "    (0): BeginBlock(user_id=7, ipu_id=None) ReLU()\n  )\n)"
    )
    assert poptorch.module_repr(model) == expected
    poptorch.print(model)
    assert capsys.readouterr().out == f"{expected}\n"
    assert repr(poptorch.inferenceModel(model)) == expected


def doubled(x):
    return x * 2


def test_functions_become_modules_that_can_be_pickled():
    block = poptorch.BeginBlock(doubled, user_id=4, ipu_id=0)
    assert isinstance(block, nn.Module) and (block._user_id, block._ipu_id) == (4, 0)
    restored = pickle.loads(pickle.dumps(block))
    assert (restored._user_id, restored._ipu_id) == (4, 0) and restored(3) == 6
    assert poptorch.inferenceModel(lambda x: restored(x))(torch.ones(1)).item() == 2


# ---- automatic ids


class Repeated(nn.Module):
    """One annotated layer called twice, between scopes without an id."""

    def __init__(self, resets=True):
        super().__init__()
        self.layer = poptorch.BeginBlock(nn.Linear(2, 2))
        self.resets = resets

    @poptorch.BlockFunction()
    def last(self, x):
        return x * 2

    def forward(self, x):
        if self.resets:
            poptorch.Block.useAutoId()
        with poptorch.Block():
            x = x * 3
        x = self.layer(self.layer(x))
        return self.last(x)


def test_ids_come_from_one_counter_and_are_kept():
    model = Repeated()
    listed = poptorch.PipelinedExecution(poptorch.Stage("0").ipu(0), poptorch.Stage("1").ipu(0), poptorch.Stage("2").ipu(0))
    chosen = poptorch.Options().setExecutionStrategy(listed)
    for _ in range(2):  # the layer keeps "1" in later compilations; the scopes are numbered anew
        poptorch.inferenceModel(model, chosen)(torch.ones(1, 2))
        assert "BeginBlock(user_id=1, ipu_id=None)" in poptorch.module_repr(model)
        with pytest.raises(AssertionError, match="unknown block '1'"):
            poptorch.inferenceModel(model, poptorch.Options().setExecutionStrategy(poptorch.PipelinedExecution("0", "2")))(torch.ones(1, 2))


def test_a_kept_id_is_one_stage_under_auto_increment():
    model = nn.Sequential(poptorch.BeginBlock(nn.Linear(2, 2)), nn.ReLU())
    chosen = poptorch.Options().deviceIterations(2).setExecutionStrategy(poptorch.PipelinedExecution(poptorch.AutoStage.AutoIncrement))
    executor = poptorch.inferenceModel(lambda x: model(model(x)), chosen)  # IPU 0, then twice stage 1: two stages
    assert executor(torch.ones(2, 2)).shape == (2, 2)


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

    with pytest.raises(poptorch.Error, match=r"must be greater.*\(3\)"):
        run(Scoped(), accumulation=2)
    assert run(Scoped(), accumulation=3).dim() == 0


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
