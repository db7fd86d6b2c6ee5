"""Op records of wrapped models: operands, stages and IPUs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ipu_model
import poptorch
from ipu_model.cost.estimate import estimate_program
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.memory import boundary_bytes
from ipu_model.cost.settings import Settings
from ipu_model.program.simplify import simplified


class Block(nn.Module):
    """A half convolution whose norm has float32 statistics, a mask made in place, and a constant of its own."""

    def __init__(self, norm):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(8, 8, 3, padding=1).half(), norm
        self.offset = [torch.full((8, 1, 1), 0.5, dtype=torch.float16)]  # neither a parameter nor a buffer

    def forward(self, x):
        x = self.norm(self.convolution(x).float()).half()
        mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.8)
        return torch.relu_(x) * mask + self.offset[0]


class Network(nn.Module):
    def __init__(self, make_norm=lambda: nn.BatchNorm2d(8)):
        super().__init__()
        self.first, self.second = Block(make_norm()), Block(make_norm())

    def forward(self, x):
        return poptorch.identity_loss(self.second(self.first(x)).float(), reduction="mean")


def traced(model, ipus=(0, 1), strategy=None):
    poptorch.BeginBlock(model.first, "a", ipu_id=ipus[0])
    poptorch.BeginBlock(model.second, "b", ipu_id=ipus[1])
    options = poptorch.Options()
    options.Training.gradientAccumulation(4)
    if strategy is not None:
        options.setExecutionStrategy(strategy)
    executor = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
    return ipu_model.trace(executor, torch.zeros(8, 8, 4, 4, dtype=torch.float16))[0]


@pytest.mark.parametrize("make_norm", [lambda: nn.BatchNorm2d(8), lambda: nn.GroupNorm(2, 8)])
def test_every_operand_is_written_or_is_a_source(make_norm):
    whole = traced(Network(make_norm))
    for program in (whole, simplified(whole)):
        known = set(program.sources)
        for op in program.ops:
            assert known.issuperset(op.reads), op
            known.add(op.writes)
    assert [op.kind for op in simplified(whole).ops].count("cast") < [op.kind for op in whole.ops].count("cast")
    assert len(whole.sources) == 3  # the images, and a constant in each block
    assert boundary_bytes(simplified(whole), 1) == boundary_bytes(whole, 1) == 2 * 2 * 8 * 4 * 4  # a half tensor of 2 images


@pytest.mark.parametrize(
    ("ipus", "strategy", "stages", "places"),
    [
        ((0, 1), None, (0, 1), (0, 1)),
        ((1, 0), None, (0, 1), (1, 0)),
        ((2, 2), None, (0, 0), (2,)),
        ((0, 1), poptorch.PipelinedExecution(poptorch.Stage("a").ipu(1), poptorch.Stage("b").ipu(0)), (0, 1), (1, 0)),
        ((0, 0), poptorch.PipelinedExecution(poptorch.Stage("a").ipu(1), poptorch.Stage("b").ipu(1)), (0, 1), (1, 1)),
        ((0, 0), poptorch.PipelinedExecution(poptorch.AutoStage.AutoIncrement), (0, 1), (0, 0)),
    ],
)
def test_stages_are_an_order_and_ipus_are_places(ipus, strategy, stages, places):
    program = traced(Network(), ipus, strategy)
    assert (program.stages.of_block, program.stages.ipus) == (stages, places)
    assert program.stage_of(program.ops[-1]) == stages[-1]


def test_reversed_ipus_cost_what_others_do():
    straight, reversed_ = (traced(Network(), ipus) for ipus in ((0, 1), (1, 0)))
    estimates = [estimate_program(program, Settings(8), MACHINES["pod4"]) for program in (straight, reversed_)]
    assert estimates[0].step_cycles == estimates[1].step_cycles
    assert estimates[1].stages[1].transfer_cycles > 0
    assert [ipu.memory for ipu in estimates[0].ipus] == [ipu.memory for ipu in estimates[1].ipus][::-1]
