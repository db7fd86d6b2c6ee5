"""Section 18.5: the state that the device keeps for an optimizer, loaded states, and parameters of replica groups."""

from __future__ import annotations

import pytest
import torch
from shared_models import Regression as Model, set_group, trained, values_on_device as parameters_of
from torch import nn

import poptorch


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: poptorch.optim.SGD(p, lr=0.1), {}),
        (lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9), {"Accl1": 0}),
        (lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.0), {"Accl1": 0}),  # 0, and may change
        (lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, use_combined_accum=True), {"Accl": 0}),
        (lambda p: poptorch.optim.AdamW(p), {"Accl1": 0, "Accl2": 0, "Step": 0}),
        (lambda p: poptorch.optim.RMSprop(p, use_tf_variant=True, momentum=0.9, centered=True), {"Accl1": 1, "Accl2": 0, "Accl3": 0}),
    ],
)
def test_state_exists_from_the_upload_on(make, expected):
    model = Model()
    optimizer = make(model.parameters())
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    executor.compile(torch.randn(4, 3))
    state = optimizer.state_dict()["ipu_state"]
    shapes = {"layer.weight": (1, 3), "layer.bias": (1,)}
    assert set(state) == {f"{key}___{name}" for key in expected for name in shapes}
    for key, value in expected.items():
        for name, shape in shapes.items():
            assert state[f"{key}___{name}"].shape == (() if key == "Step" else shape)
            assert (state[f"{key}___{name}"] == value).all()
    executor(torch.randn(4, 3))
    assert all(not torch.equal(state[entry], value) for entry, value in optimizer.state_dict()["ipu_state"].items())


def test_a_momentum_that_may_change_has_the_momentums_parameters():
    assert "scaledMomentum2" in parameters_of(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.0))
    later, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.0), [set_group("momentum", 0.5)])
    at_once, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.5), [set_group("lr", 0.1)])
    assert torch.equal(later, at_once)  # the velocity after the first step is its gradient either way


def test_adamw_corrects_its_bias_always_and_lamb_where_asked():
    make = lambda kind, flag: trained(lambda p: kind(p, lr=0.1, bias_correction=flag))[0]  # noqa: E731
    assert torch.equal(make(poptorch.optim.AdamW, False), make(poptorch.optim.AdamW, True))
    assert not torch.equal(make(poptorch.optim.LAMB, False), make(poptorch.optim.LAMB, True))


def test_a_velocity_scaling_without_a_combined_accumulator_is_warned_of(caplog):
    poptorch.optim.SGD(Model().parameters(), lr=0.1, velocity_scaling=2.0)
    assert "velocity_scaling is ignored" in caplog.text


@pytest.mark.parametrize(
    ("make", "change", "group"),
    [
        (lambda p: poptorch.optim.SGD(p, lr=0.1, weight_decay=0.2), {"scaledLearningRate0": 0.05}, {"lr": 0.05, "weight_decay": 0.4}),
        (lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9), {"scaledMomentum2": 0.5}, {"momentum": 0.5}),
        (
            lambda p: poptorch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99)),
            {"learningRate": 0.05, "adamBeta1": 0.5},
            {"lr": 0.05, "betas": (0.5, 0.99)},
        ),
        (lambda p: poptorch.optim.RMSprop(p, lr=0.1, eps=1.0), {"adaptiveEps": 0.5}, {"eps": 0.5}),
        (lambda p: poptorch.optim.LAMB(p, lr=0.1, weight_decay=0.1), {"weightDecay": 0.5}, {"weight_decay": 0.5}),
    ],
)
def test_loaded_values_are_those_in_use(make, change, group):
    """A loaded learning rate acts like a group's, until setOptimizer brings other values."""
    x = torch.randn(4, 3)

    def after_two(load):
        torch.manual_seed(0)
        model = Model()
        optimizer = make(model.parameters())
        executor = poptorch.trainingModel(model, optimizer=optimizer)
        executor(x)
        load(optimizer, executor)
        executor(x)
        return model.state_dict()["layer.weight"].clone()

    def loads(optimizer, executor):
        state = optimizer.state_dict()
        for entry in state["ipu_param"]:
            if entry.split("___")[0] in change:
                state["ipu_param"][entry] = torch.tensor(change[entry.split("___")[0]])
        optimizer.load_state_dict(state)
        read = optimizer.state_dict()
        assert read["ipu_param"] == state["ipu_param"]
        executor.setOptimizer(optimizer)  # the same values as before: the loaded ones stay

    def sets(optimizer, executor):
        optimizer.param_groups[0].update(group)
        executor.setOptimizer(optimizer)

    def loads_and_sets(optimizer, executor):
        loads(optimizer, executor)
        optimizer.param_groups[0]["lr"] = 0.25
        executor.setOptimizer(optimizer)

    def sets_rate(optimizer, executor):
        optimizer.param_groups[0]["lr"] = 0.25
        executor.setOptimizer(optimizer)

    torch.testing.assert_close(after_two(loads), after_two(sets), rtol=1e-6, atol=1e-7)  # the device's values are float32
    assert not torch.equal(after_two(loads), after_two(lambda optimizer, executor: None))
    assert torch.equal(after_two(loads_and_sets), after_two(sets_rate))


def resumed(change=lambda optimizer: None, sets=True, rate=0.05):
    """Weights after one call with a loaded state whose learning rate is `rate`; `change` and `setOptimizer` come before compiling."""
    x = torch.ones(4, 3)
    torch.manual_seed(0)
    first = Model()
    optimizer = poptorch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9)
    poptorch.trainingModel(first, optimizer=optimizer)(x)
    state = optimizer.state_dict()
    for entry in state["ipu_param"]:
        if entry.startswith("scaledLearningRate2"):
            state["ipu_param"][entry] = torch.tensor(rate)
    second = Model()
    second.load_state_dict(first.state_dict())
    again = poptorch.optim.SGD(second.parameters(), lr=0.25, momentum=0.9)
    executor = poptorch.trainingModel(second, optimizer=again)
    again.load_state_dict(state)
    change(again)
    if sets:
        executor.setOptimizer(again)
    executor(x)
    return second.layer.weight.detach().clone()


def to_rate(rate):
    return lambda optimizer: optimizer.param_groups[0].update(lr=rate)


def test_values_set_after_loading_and_before_compiling_win():
    """Also the value with which the optimizer was made; the velocity is the loaded one either way."""
    loaded = resumed()
    torch.testing.assert_close(loaded, resumed(to_rate(0.05)), rtol=1e-6, atol=1e-7)  # the device's rate is float32
    torch.testing.assert_close(resumed(to_rate(0.25)), resumed(rate=0.25), rtol=1e-6, atol=1e-7)
    assert not torch.equal(resumed(to_rate(0.25)), loaded)


def test_what_is_changed_without_setting_it_does_not_count():
    assert torch.equal(resumed(to_rate(0.25), sets=False), resumed())


@pytest.mark.parametrize("is_compiled", [False, True])
def test_an_automatic_loss_scale_is_the_devices_own(is_compiled):
    """A new learning rate after loading leaves it as it was loaded."""
    options = poptorch.Options()
    options.Training.setAutomaticLossScaling(True)
    model = Model()
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, loss_scaling=64.0)
    executor = poptorch.trainingModel(model, options, optimizer)
    executor.compile(torch.ones(4, 3))
    state = optimizer.state_dict()
    state["ipu_param"]["lossScaling_FLOAT"] = torch.tensor(1024.0)
    if not is_compiled:
        executor.destroy()
    optimizer.load_state_dict(state)
    optimizer.param_groups[0]["lr"] = 0.05
    executor.setOptimizer(optimizer)
    executor(torch.ones(4, 3))
    assert optimizer.state_dict()["ipu_param"]["lossScaling_FLOAT"] in (512.0, 1024.0, 2048.0)  # one step of the rule at most


def test_a_part_of_the_state_is_read_back_as_it_was_loaded_until_the_next_run():
    _, executor, optimizer = trained(lambda p: poptorch.optim.AdamW(p, lr=0.1))
    whole = optimizer.state_dict()
    part = {**whole, "ipu_state": {"Accl1___layer.bias": torch.full((1,), 7.0)}, "ipu_param": {"lossScaling_FLOAT": torch.tensor(4.0)}}
    weights = executor.model.layer.weight.detach().clone()
    optimizer.load_state_dict(part)
    read = optimizer.state_dict()
    assert read["ipu_state"] == part["ipu_state"] and read["ipu_param"] == part["ipu_param"]
    assert torch.equal(executor.model.layer.weight, weights)
    executor(torch.zeros(4, 3))
    read = optimizer.state_dict()
    assert set(read["ipu_state"]) == set(whole["ipu_state"]) and set(read["ipu_param"]) == set(whole["ipu_param"])
    assert read["ipu_param"]["lossScaling_FLOAT"] == 4 and read["ipu_state"]["Step___layer.bias"] == 2


def test_only_torchs_part_is_loaded_where_there_is_no_device_state():
    _, executor, optimizer = trained(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9))
    before = optimizer.state_dict()
    optimizer.load_state_dict({**before, "ipu_state": None, "ipu_param": None})
    assert torch.equal(optimizer.state_dict()["ipu_state"]["Accl1___layer.weight"], before["ipu_state"]["Accl1___layer.weight"])


# ---- parameters of replica groups


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_a_weight_split_over_groups_has_the_gradient_of_the_whole(shards):
    """Replicas of a group see the same part of a weight; the losses of all replicas are averaged."""
    replicas, steps = 4, 2
    torch.manual_seed(0)
    whole = torch.randn(replicas // shards, 3)
    inputs = torch.randn(steps * replicas, 3)

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(whole.clone())

        def forward(self, x):
            return poptorch.identity_loss((self.weight * x).sum() ** 2, reduction="none")

    model = Split()
    options = poptorch.Options().replicationFactor(replicas)
    options.Training.gradientAccumulation(steps)
    optimizer = poptorch.optim.AdamW(model.parameters(), lr=0.1)
    executor = poptorch.trainingModel(model, options, torch.optim.SGD(model.parameters(), lr=1.0))
    executor.weight.replicaGrouping(poptorch.CommGroupType.Consecutive, shards, poptorch.VariableRetrievalMode.OnePerGroup)
    executor(inputs)

    reference = whole.clone().requires_grad_(True)
    losses = [(reference[number % replicas // shards] * x).sum() ** 2 for number, x in enumerate(inputs)]
    (torch.stack(losses).sum() / (steps * replicas)).backward()
    torch.testing.assert_close(model.state_dict()["weight"], whole - reference.grad)

    executor.destroy()
    executor = poptorch.trainingModel(model, options, optimizer)
    executor.weight.replicaGrouping(poptorch.CommGroupType.Consecutive, shards, poptorch.VariableRetrievalMode.OnePerGroup)
    executor(inputs)
    state = optimizer.state_dict()["ipu_state"]
    assert state["Accl1___weight"].shape == whole.shape and state["Step___weight"].tolist() == [1.0] * (replicas // shards)


def test_each_slice_is_a_parameter_to_lamb():
    """The trust ratio is of a slice's own norms."""

    class Split(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = nn.Parameter(weight.clone())

        def forward(self, x):
            return poptorch.identity_loss((self.weight * x).sum() ** 2, reduction="none")

    torch.manual_seed(0)
    weights, inputs = torch.stack([torch.randn(3), 10 * torch.randn(3)]), torch.randn(2, 3)
    model = Split(weights)
    executor = poptorch.trainingModel(model, poptorch.Options().replicationFactor(2), poptorch.optim.LAMB(model.parameters(), lr=0.1))
    executor.weight.replicaGrouping(poptorch.CommGroupType.NoGrouping, 1, poptorch.VariableRetrievalMode.OnePerGroup)
    executor(inputs)
    for index in range(2):
        alone = Split(weights[index])
        poptorch.trainingModel(alone, optimizer=poptorch.optim.LAMB(alone.parameters(), lr=0.1))(inputs[index : index + 1])
        # LAMB's first step does not depend on the gradient's size, but for eps
        torch.testing.assert_close(model.state_dict()["weight"][index], alone.state_dict()["weight"], rtol=1e-4, atol=1e-5)
