"""Section 18.10: the opening words that people search for stay in one piece; what other files do not show of its table."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data, options
from torch import nn

import poptorch


class Counts(nn.Module):
    """Changes a buffer or a parameter whenever it runs."""

    def __init__(self, is_buffer):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("total", torch.zeros(1))
        self.is_buffer = is_buffer

    def forward(self, x):
        (self.total if self.is_buffer else self.weight.data).add_(1)
        return x * self.weight + self.total


@pytest.mark.parametrize("is_buffer", [True, False])
def test_replicas_that_change_a_buffer_or_a_parameter(is_buffer):
    with pytest.raises(poptorch.Error, match="PopTorch does not support broadcasting buffers") as raised:
        poptorch.inferenceModel(Counts(is_buffer), options(replicas=2))(torch.ones(2))
    assert "poptorch.Options.broadcastBuffers(False)" in str(raised.value)
    assert poptorch.inferenceModel(Counts(is_buffer), options(2))(torch.ones(2)).tolist() == [2, 3]  # one replica may


def test_replicas_have_no_parameters_of_their_own_to_change():
    model = poptorch.inferenceModel(Counts(is_buffer=False), options(2, replicas=2).broadcastBuffers(False))
    try:  # the IPU Model keeps parameters once
        assert model(torch.ones(4)).tolist() == [2, 2, 3, 3]
    except NotImplementedError as error:
        assert "a buffer in its place" in str(error)


def test_inference_accumulates_no_gradients():
    with pytest.raises(poptorch.Error, match=r"Training\.gradientAccumulation to 1") as raised:
        poptorch.inferenceModel(Model(), options(accumulation=2))(data()[0])
    assert "poptorch.inferenceModel()" in str(raised.value) and "default" in str(raised.value)


@pytest.mark.parametrize("ask", [lambda executor: executor.copyWeightsToHost(), lambda executor: executor.save("unused")])
def test_models_that_are_not_compiled(ask):
    with pytest.raises(poptorch.Error, match="Model has not been compiled or has been destroyed"):
        ask(poptorch.trainingModel(Model()))


def test_models_that_are_wrapped_already():
    model = Model()
    poptorch.trainingModel(model)
    with pytest.raises(RuntimeError, match=r"Model has already been wrapped in 'poptorch\.trainingModel'.*model\.destroy\(\)"):
        poptorch.trainingModel(model)


def test_numbers_of_io_tiles():
    for wrong in (31, 30, 194):
        with pytest.raises(AssertionError, match="numIOTiles must be an even number between 32 and 192"):
            poptorch.Options().TensorLocations.numIOTiles(wrong)


def test_states_of_other_optimizers():
    layer = Model()
    optimizer = poptorch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="Only IPU optimizer states can be loaded onto the IPU"):
        optimizer.load_state_dict(torch.optim.SGD(layer.parameters(), lr=0.1).state_dict())
