"""Sections 3.5 to 3.8: where weights move, attaching, random numbers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from shared_models import Model, data, options
from torch import nn

import poptorch

# ---- where weights move


def test_the_host_is_stale_until_weights_are_copied():
    model = Model()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    before = model.layer.weight.detach().clone()
    executor(*data())
    assert not torch.equal(model.state_dict()["layer.weight"], before)  # looking at the module downloads
    assert not model.copyWeightsToHostIfNeeded()
    executor(*data())
    assert model.copyWeightsToHostIfNeeded()


def test_a_returned_weight_is_a_copy():
    class ReturnsWeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.w, poptorch.identity_loss((self.w * x).sum(), reduction="none")

    model = ReturnsWeight()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    first, _ = executor(torch.ones(1))
    executor(torch.ones(1))
    assert first.item() == 1.0


def test_host_edits_are_invisible_until_copied_to_the_device():
    model, (x, _) = Model(), data()
    executor = poptorch.inferenceModel(model)
    before = executor(x)
    model.layer.weight.data.zero_()
    model.layer.bias.data.fill_(7.0)
    assert torch.equal(executor(x), before)
    executor.copyWeightsToDevice()
    assert executor(x).tolist() == [[7.0, 7.0]] * 4


def test_an_inference_model_follows_the_trainer_of_its_module():
    model, (x, y) = Model(), data()
    trainer = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    follower = poptorch.inferenceModel(model)
    first = follower(x)
    trainer(x, y)
    second = follower(x)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, model.layer(x).detach())


def test_attaching_and_detaching():
    executor = poptorch.inferenceModel(Model())
    with pytest.raises(poptorch.Error, match="Model has not been"):
        executor.detachFromDevice()
    with pytest.raises(poptorch.Error, match="Model has not been"):
        executor.copyWeightsToHost()
    executor(data()[0])
    with pytest.raises(poptorch.Error):
        executor.attachToDevice()
    executor.detachFromDevice()
    with pytest.raises(poptorch.Error, match="Device is not attached"):
        executor.detachFromDevice()
    assert executor(data()[0]).shape == (4, 2)  # attaches by itself


def test_detaching_changes_nothing_in_training():
    results = []
    for detaches in (False, True):
        torch.manual_seed(0)
        model = Model()
        executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        for step in range(4):
            torch.manual_seed(step)
            executor(*data())
            if detaches:
                executor.detachFromDevice()
        results.append(model.state_dict()["layer.weight"].clone())
    assert torch.equal(*results)


def test_wrapping_twice_is_refused_until_destroyed():
    model = Model()
    executor = poptorch.trainingModel(model)
    assert isinstance(model, Model) and type(model).__name__ == "PoptorchModel"
    with pytest.raises(RuntimeError, match="Model has already been"):
        poptorch.trainingModel(model)
    executor(*data())
    executor.destroy()
    assert type(model) is Model
    poptorch.trainingModel(model)


def test_wrapped_modules_copy_and_pickle_as_their_own_class():
    model = Model()
    poptorch.trainingModel(model)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert type(copy.deepcopy(model)) is Model
    assert type(pickle.loads(pickle.dumps(model))) is Model


def test_inputs_changed_in_place_change_for_the_caller():
    class Increments(nn.Module):
        def forward(self, x):
            x.add_(1)
            return x * 2

    x = torch.zeros(4)
    executor = poptorch.inferenceModel(Increments(), options(2))
    assert executor(x).tolist() == [2.0] * 4
    assert x.tolist() == [1.0] * 4


# ---- random numbers


def test_same_seed_same_numbers_and_replicas_differ():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    draws = []
    for _ in range(2):
        executor = poptorch.inferenceModel(Noise(), options(2, 1, 2).randomSeed(5))
        draws.append(torch.cat([executor(torch.zeros(16)), executor(torch.zeros(16))]))
        assert executor.rng_state[0] == 5
    assert torch.equal(*draws)
    assert len(set(draws[0].view(8, 4)[:, 0].tolist())) == 8


def test_random_state_is_settable_once_compiled():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    executor = poptorch.inferenceModel(Noise(), options().randomSeed(5))
    with pytest.raises(poptorch.Error):
        executor.rng_state  # noqa: B018
    first = executor(torch.zeros(4))
    state = executor.rng_state
    second = executor(torch.zeros(4))
    executor.rng_state = state
    assert torch.equal(executor(torch.zeros(4)), second) and not torch.equal(first, second)


def test_synthetic_data_keeps_shapes_and_needs_no_host():
    executor = poptorch.inferenceModel(Model(), poptorch.Options().enableSyntheticData(True))
    first, second = executor(torch.zeros(4, 3)), executor(torch.ones(4, 3))
    assert first.shape == (4, 2) and torch.equal(first, second)


def test_floating_point_exceptions():
    class Divide(nn.Module):
        def forward(self, x):
            return 1 / x

    chosen = poptorch.Options()
    chosen.Precision.enableFloatingPointExceptions(True)
    executor = poptorch.inferenceModel(Divide(), chosen)
    executor(torch.ones(1))
    with pytest.raises(poptorch.Error):
        executor(torch.zeros(1))


# ---- parameters and buffers of a wrapped model


def test_looking_at_a_parameter_downloads_it():
    for look in (lambda p: p.data.clone(), lambda p: p.detach().clone(), lambda p: p + 0, lambda p: torch.clone(p)):
        model = Model()
        weight = model.layer.weight
        before = weight.detach().clone()
        executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
        executor(*data())
        assert not torch.equal(look(weight), before)
        assert not executor.copyWeightsToHostIfNeeded()


def test_copying_to_the_device_discards_what_it_learned():
    model = Model()
    before = model.layer.weight.detach().clone()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    executor(*data())
    executor.copyWeightsToDevice()
    assert torch.equal(model.layer.weight, before)


def test_buffers_of_a_training_model_download_too():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return poptorch.identity_loss(x.sum(), reduction="none")

    model = Counts()
    executor = poptorch.trainingModel(model, options(1, 3))
    executor(torch.ones(3))
    assert model.count.item() == 3


def test_buffers_are_plain_tensors():
    class Odd(torch.Tensor):
        pass

    model = Model()
    model.register_buffer("odd", torch.ones(1).as_subclass(Odd))
    with pytest.raises(poptorch.Error, match="odd"):
        poptorch.trainingModel(model)


def test_destroying_gives_parameters_their_class_back():
    model = Model()
    kept = model.layer.weight
    executor = poptorch.trainingModel(model)
    assert type(kept) is not nn.Parameter and isinstance(kept, nn.Parameter)
    executor(*data())
    trained = kept.detach().clone()
    model.destroy()
    assert type(kept) is nn.Parameter and type(model) is Model
    assert torch.equal(kept, trained)


def test_parameters_and_state_dicts_pickle_as_torchs_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias = model[1].bias
    poptorch.trainingModel(model)
    duplicate = pickle.loads(pickle.dumps(model))
    assert type(duplicate[0].weight) is nn.Parameter and type(duplicate[1].running_mean) is torch.Tensor
    assert duplicate[0].bias is duplicate[1].bias
    assert all(type(value) is torch.Tensor for value in model.state_dict().values())
    copied = copy.deepcopy(model)
    assert type(copied[0].weight) is nn.Parameter and copied[0].bias is copied[1].bias


def test_a_following_model_needs_no_copies(tmp_path):
    """Evaluation in turns with training, as programs do it."""
    model, (x, y) = Model(), data()
    trainer = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    follower = poptorch.inferenceModel(model)
    for _ in range(3):
        trainer(x, y)
        trainer.detachFromDevice()
        torch.testing.assert_close(follower(x), model.layer(x).detach())
        follower.detachFromDevice()


def test_connection_types():
    on_demand = poptorch.inferenceModel(Model(), poptorch.Options().connectionType(poptorch.ConnectionType.OnDemand))
    on_demand.compile(data()[0])
    assert not on_demand.isAttachedToDevice()
    on_demand(data()[0])
    assert on_demand.isAttachedToDevice()


@pytest.mark.parametrize(
    ("function", "value", "fails"),
    [
        (lambda x: x - x, float("inf"), True),
        (lambda x: 0 * x, float("inf"), True),
        (lambda x: x.sqrt(), -1.0, True),
        (lambda x: (x * 1e30) * 1e30, 1.0, True),
        (lambda x: (x < 1).float(), float("nan"), True),
        (lambda x: x.masked_fill(x > 0, float("-inf")).softmax(0), -1.0, False),
        (lambda x: x * 2, float("inf"), False),
    ],
)
def test_which_operations_are_floating_point_exceptions(function, value, fails):
    chosen = poptorch.Options()
    chosen.Precision.enableFloatingPointExceptions(True)
    executor = poptorch.inferenceModel(function, chosen)
    if fails:
        with pytest.raises(poptorch.Error):
            executor(torch.tensor([value, value]))
    else:
        executor(torch.tensor([value, value]))
