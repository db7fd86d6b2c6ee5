"""Sections 18.2 and 18.11: weights between training and inference models of one module."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data
from torch import nn

import poptorch


def trainer_and_followers(count=1):
    model = Model()
    trainer = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    return model, trainer, [poptorch.inferenceModel(model) for _ in range(count)]


LOOKS = {
    "nothing": lambda model, trainer: None,
    "copies": lambda model, trainer: trainer.copyWeightsToHost(),
    "a parameter": lambda model, trainer: model.layer.weight.sum(),
    "a state dict": lambda model, trainer: model.state_dict(),
    "printing": lambda model, trainer: str(list(model.parameters())),
    "running": lambda model, trainer: model(data()[0], data()[1]),
    "destroying": lambda model, trainer: trainer.destroy(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_follower_sees_new_weights_whatever_downloaded_them(look):
    model, trainer, followers = trainer_and_followers(3)
    (x, y) = data()
    before = [follower(x) for follower in followers]
    for _ in range(2):
        trainer(x, y)
        LOOKS[look](model, trainer)
        for number, follower in enumerate(followers):
            seen = follower(x)
            assert not torch.equal(seen, before[number])
            before[number] = seen
            torch.testing.assert_close(seen, torch.nn.functional.linear(x, model.layer.weight, model.layer.bias).detach())
        if look == "destroying":
            break


def test_a_model_wrapped_before_the_trainer_keeps_its_weights():
    model, (x, y) = Model(), data()
    early = poptorch.inferenceModel(model)
    before = early(x)
    trainer = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    trainer(x, y)
    trainer.copyWeightsToHost()
    assert torch.equal(early(x), before)
    early.copyWeightsToDevice()
    assert not torch.equal(early(x), before)


def test_a_follower_of_a_follower_follows_the_trainer():
    _, trainer, (follower,) = trainer_and_followers()
    x, y = data()
    second, third = poptorch.inferenceModel(follower), poptorch.inferenceModel(trainer)
    before = second(x)
    trainer(x, y)
    assert not torch.equal(second(x), before)
    assert torch.equal(second(x), follower(x)) and torch.equal(third(x), follower(x))


def test_two_training_models_may_share_a_part():
    class Part(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.shared, self.own = shared, nn.Linear(2, 1)

        def forward(self, x):
            return poptorch.identity_loss(self.own(self.shared(x)).sum(), reduction="none")

    shared = nn.Linear(2, 2)
    models = [Part(shared), Part(shared)]
    executors = [poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5)) for model in models]
    before = shared.weight.detach().clone()
    executors[0](torch.ones(1, 2))
    assert not torch.equal(shared.weight, before)
    first = shared.weight.detach().clone()
    executors[1](torch.ones(1, 2))
    assert not torch.equal(shared.weight, first)
    executors[0].destroy()
    assert type(shared.weight) is not nn.Parameter  # the other one's still
    executors[1].destroy()
    assert type(shared.weight) is nn.Parameter
