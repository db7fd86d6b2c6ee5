"""Section 6: optimizers."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poptorch


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return F.mse_loss(self.layer(x), torch.zeros(len(x), 1))


def trained(optimizer_of, changes=(), relax=False):
    """Weights after one call for each change, which is applied to the optimizer first."""
    torch.manual_seed(0)
    model = Model()
    optimizer = optimizer_of(model.parameters())
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    x = torch.randn(4, 3)
    executor(x)
    for change in changes:
        change(optimizer)
        executor.setOptimizer(optimizer)
        executor(x)
    return model.state_dict()["layer.weight"].clone(), executor, optimizer


def set_group(name, value):
    return lambda optimizer: optimizer.param_groups[0].update({name: value})


def test_unsupported_optimizers_are_refused():
    model = Model()
    with pytest.raises(AssertionError, match="Unsupported optimizer type Adagrad"):
        poptorch.trainingModel(model, optimizer=torch.optim.Adagrad(model.parameters()))


def test_sgd_needs_a_learning_rate():
    with pytest.raises(TypeError):
        poptorch.optim.SGD(Model().parameters())


def test_accumulation_types_are_half_or_float():
    with pytest.raises(AssertionError):
        poptorch.optim.Adam(Model().parameters(), accum_type=torch.int32)


def test_amsgrad_is_refused():
    with pytest.raises(ValueError, match="amsgrad"):
        trained(lambda p: poptorch.optim.Adam(p, amsgrad=True))


@pytest.mark.parametrize("values", [dict(loss_scaling=1.0, velocity_scaling=-1.0, use_combined_accum=True, momentum=0.9)])
def test_values_that_the_device_refuses(values):
    with pytest.raises(poptorch.Error):
        trained(lambda p: poptorch.optim.SGD(p, lr=0.1, **values))


def test_a_changed_learning_rate_needs_set_optimizer():
    stopped, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1), [set_group("lr", 0.0)])
    once, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1))
    assert torch.equal(stopped, once)
    torch.manual_seed(0)
    model = Model()
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.1)
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    x = torch.randn(4, 3)
    executor(x)
    optimizer.param_groups[0]["lr"] = 0.0
    executor(x)  # not seen
    assert not torch.equal(model.state_dict()["layer.weight"], once)


def test_constant_attributes_do_not_change():
    with pytest.raises(
        poptorch.Error, match="Optimizer attribute weight_decay of group 0 is constant: the model was compiled with 0, got 0.5"
    ):
        trained(lambda p: poptorch.optim.SGD(p, lr=0.1), [set_group("weight_decay", 0.5)])
    plain, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1), [set_group("lr", 0.1)])
    variable, _, optimizer = trained(lambda p: poptorch.optim.SGD(p, lr=0.1, weight_decay=0.0), [set_group("weight_decay", 0.5)])
    assert not optimizer.variable_attrs.isConstant("weight_decay")
    assert not torch.equal(variable, plain)
    assert optimizer.variable_attrs.isConstant("nonsense") and optimizer.variable_attrs.isConstant("momentum")
    with pytest.raises(AssertionError):
        optimizer.variable_attrs.markAsConstant("nonsense")


def test_momentum_survives_set_optimizer():
    kept, _, _ = trained(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9), [set_group("lr", 0.1)])
    torch.manual_seed(0)
    model = Model()
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    x = torch.randn(4, 3)
    executor(x)
    executor(x)
    assert torch.equal(kept, model.state_dict()["layer.weight"])


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda p: poptorch.optim.SGD(p, lr=0.1), set()),
        (lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9), {"Accl1___layer.weight", "Accl1___layer.bias"}),
        (lambda p: poptorch.optim.AdamW(p), {f"{s}___layer.{n}" for s in ("Accl1", "Accl2", "Step") for n in ("weight", "bias")}),
        (lambda p: poptorch.optim.RMSprop(p, momentum=0.9), {f"{s}___layer.{n}" for s in ("Accl1", "Accl3") for n in ("weight", "bias")}),
    ],
)
def test_state_dict_has_the_devices_state(make, states):
    optimizer = make(Model().parameters())
    assert optimizer.state_dict()["ipu_state"] is None
    _, _, optimizer = trained(make)
    state = optimizer.state_dict()
    assert set(state["ipu_state"]) == states
    assert state["ipu_param"]["lossScaling_FLOAT"] == 1


def test_loading_a_state_dict_goes_on_where_it_was():
    make = lambda p: poptorch.optim.AdamW(p, lr=0.05)  # noqa: E731
    x = torch.randn(4, 3)

    def start():
        torch.manual_seed(0)
        model = Model()
        optimizer = make(model.parameters())
        return model, optimizer, poptorch.trainingModel(model, optimizer=optimizer)

    model, optimizer, executor = start()
    for _ in range(3):
        executor(x)
    saved, weights = optimizer.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
    executor(x)
    expected = model.state_dict()["layer.weight"].clone()

    model, optimizer, executor = start()
    model.load_state_dict(weights)
    optimizer.load_state_dict(saved)
    executor(x)
    assert torch.equal(model.state_dict()["layer.weight"], expected)


def test_only_ipu_states_are_loaded():
    optimizer = poptorch.optim.SGD(Model().parameters(), lr=0.1)
    for wrong in ({}, torch.optim.SGD(Model().parameters(), lr=0.1).state_dict()):
        with pytest.raises(RuntimeError, match="Only IPU optimizer states"):
            optimizer.load_state_dict(wrong)


def test_half_state_is_stored_in_half():
    _, _, optimizer = trained(lambda p: poptorch.optim.AdamW(p, first_order_momentum_accum_type=torch.float16))
    state = optimizer.state_dict()["ipu_state"]
    assert state["Accl1___layer.weight"].dtype == torch.float16
    assert state["Accl2___layer.weight"].dtype == torch.float32


def test_half_weights_round_stochastically_when_asked():
    """An update of a tenth of half's spacing is lost when rounding to nearest, and kept on average when rounding stochastically."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(4000).half())

        def forward(self, x):
            return poptorch.identity_loss((self.w * x).float().sum(), reduction="none")

    moved = []
    for is_stochastic in (False, True):
        options = poptorch.Options()
        options.Precision.enableStochasticRounding(is_stochastic)
        options.randomSeed(1)
        model = Slope()
        executor = poptorch.trainingModel(model, options, torch.optim.SGD(model.parameters(), lr=0.1 * 2**-10))
        executor(torch.ones(1).half())
        moved.append((1 - model.state_dict()["w"].double()).mean().item() / 2**-10)
    assert moved[0] == 0
    assert abs(moved[1] - 0.1) < 0.02  # below 1 the spacing is half as wide; deviation of the mean: 0.5 * 0.4 / sqrt(4000) = 0.003


def test_automatic_loss_scaling_changes_the_scale_not_the_mathematics():
    results = []
    for is_automatic in (False, True):
        torch.manual_seed(0)
        model = Model()
        options = poptorch.Options()
        options.Training.setAutomaticLossScaling(is_automatic)
        optimizer = poptorch.optim.SGD(model.parameters(), lr=0.1)
        executor = poptorch.trainingModel(model, options, optimizer)
        x = torch.randn(4, 3)
        for _ in range(3):
            executor(x)
        results.append(model.state_dict()["layer.weight"].clone())
    assert optimizer.state_dict()["ipu_param"]["lossScaling_FLOAT"] == 8  # doubled three times
    torch.testing.assert_close(*results, atol=1e-7, rtol=1e-6)  # powers of two change no bits but where products round


# ---- what the device holds, and what it was not compiled with


def parameters_of(make):
    _, _, optimizer = trained(make)
    values = optimizer.state_dict()["ipu_param"]
    return {
        key.split("___")[0]: value.item() for key, value in values.items() if key == "lossScaling_FLOAT" or key.endswith("layer.weight")
    }


def test_values_of_sgd_on_the_device():
    values = parameters_of(lambda p: poptorch.optim.SGD(p, lr=0.1, dampening=0.5, weight_decay=0.25, loss_scaling=4.0))
    assert values == pytest.approx(
        {"lossScaling_FLOAT": 4, "scaledLearningRate0": 0.1 * 0.5 / 4, "weightDecayScaleFactor0": 1 - 0.1 * 0.5 * 0.25}
    )
    separate = parameters_of(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.5))
    assert {"scaledWeightDecay1", "scaledLearningRate2", "scaledMomentum2", "dampeningScaleFactor2"} < set(separate)
    combined = parameters_of(lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, velocity_scaling=2.0, use_combined_accum=True))
    assert combined["scaledLearningRate1"] == pytest.approx(0.05) and combined["scaledMomentum1"] == pytest.approx(0.9)


def test_constant_values_are_not_in_the_state():
    values = parameters_of(lambda p: poptorch.optim.AdamW(p, lr=0.25, betas=(0.5, 0.75)))
    assert values == {"lossScaling_FLOAT": 1, "learningRate": 0.25, "adamBeta1": 0.5, "adamBeta2": 0.75}
    assert set(parameters_of(lambda p: poptorch.optim.RMSprop(p, lr=0.1, eps=1.0))) == {"lossScaling_FLOAT", "learningRate", "adaptiveEps"}
    assert "maxWeightNorm" in parameters_of(lambda p: poptorch.optim.LAMB(p, lr=0.1, max_weight_norm=2.0))


def test_half_accumulation_keeps_running_means():
    model = Model()
    executor = poptorch.trainingModel(model, optimizer=poptorch.optim.AdamW(model.parameters(), accum_type=torch.float16))
    strategy = executor.options.Training.meanAccumulationAndReplicationReductionStrategy
    assert strategy == poptorch.MeanReductionStrategy.Running
    _, executor, _ = trained(lambda p: poptorch.optim.AdamW(p))
    with pytest.raises(ValueError, match="is already compiled"):
        executor.setOptimizer(poptorch.optim.AdamW(executor.model.parameters(), accum_type=torch.float16))


def test_unexpected_attributes_are_warned_of_once(caplog):
    _, executor, optimizer = trained(lambda p: poptorch.optim.SGD(p, lr=0.1))
    optimizer.my_attribute = 3
    optimizer.param_groups[0]["mine"] = 4
    for _ in range(2):
        executor.setOptimizer(optimizer)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("unexpected optimizer attribute" in message for message in messages) == 1
    assert sum("unexpected group 0 attribute" in message for message in messages) == 1


def test_python_code_of_optimizers_is_not_run(caplog):
    class Mine(torch.optim.SGD):
        def step(self, closure=None):
            raise AssertionError("never called")

    trained(lambda p: Mine(p, lr=0.1))
    assert any("does not run" in record.getMessage() for record in caplog.records)


def test_schedulers_drive_the_device():
    torch.manual_seed(0)
    model = Model()
    optimizer = poptorch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.0)
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    x = torch.randn(4, 3)
    executor(x)
    optimizer.step()  # torch's schedulers expect it; gradients are None on the host
    weight = model.layer.weight.detach().clone()
    scheduler.step()
    executor.setOptimizer(optimizer)
    executor(x)
    assert torch.equal(model.layer.weight, weight)


def test_the_number_of_groups_is_fixed():
    _, executor, optimizer = trained(lambda p: poptorch.optim.SGD(p, lr=0.1))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(AssertionError, match="number of parameter groups"):
        executor.setOptimizer(optimizer)


# ---- section 18.5


EXTRAS = ("loss_scaling", "accum_type", "first_order_momentum_accum_type", "second_order_momentum_accum_type", "max_grad_norm")
SIGNATURES = {
    "SGD": "params lr momentum dampening weight_decay nesterov maximize foreach differentiable loss_scaling velocity_scaling "
    "use_combined_accum accum_type velocity_accum_type max_grad_norm",
    "Adam": "params lr betas eps weight_decay amsgrad foreach maximize capturable differentiable fused " + " ".join(EXTRAS),
    "AdamW": "params lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused loss_scaling bias_correction "
    + " ".join(EXTRAS[1:]),
    "RMSprop": "params lr alpha eps weight_decay momentum centered foreach maximize differentiable "
    + " ".join(EXTRAS[:4])
    + " use_tf_variant",
    "LAMB": "params lr betas eps weight_decay bias_correction loss_scaling max_weight_norm " + " ".join(EXTRAS[1:4]),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_poptorchs(name):
    parameters = inspect.signature(getattr(poptorch.optim, name)).parameters
    assert list(parameters) == SIGNATURES[name].split()
    assert all(p.default is None for p in parameters.values() if p.name not in ("params", "lr"))
    assert not {p.kind for p in parameters.values()} & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}


MAKE = {
    "SGD": lambda p, **values: poptorch.optim.SGD(p, **{"lr": 0.1, **values}),
    **{name: getattr(poptorch.optim, name) for name in ("Adam", "AdamW", "RMSprop", "LAMB")},
}


@pytest.mark.parametrize("name", MAKE)
def test_none_is_the_default_and_constant(name):
    everything = {p: None for p in SIGNATURES[name].split() if p not in ("params", "lr")}
    optimizer = MAKE[name](Model().parameters(), **everything)
    plain = MAKE[name](Model().parameters())
    assert optimizer.defaults == plain.defaults
    assert all(optimizer.variable_attrs.isConstant(attribute) for attribute in everything)
    hyper = {"weight_decay", "betas", "eps", "momentum", "dampening", "alpha", "max_weight_norm"} & set(optimizer.defaults)
    assert all(optimizer.defaults[key] is not None and optimizer.param_groups[0][key] is not None for key in hyper)
    weights, _, _ = trained(lambda p: MAKE[name](p, **everything), [set_group("lr", 0.0)] if name == "SGD" else ())
    assert torch.isfinite(weights).all()


def test_lambs_weight_norm_is_out_of_reach_by_default():
    optimizer = poptorch.optim.LAMB(Model().parameters(), max_weight_norm=None)
    assert optimizer.param_groups[0]["max_weight_norm"] == 65500


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


def test_names_present_when_the_executor_was_made_are_expected(caplog):
    model = Model()
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.mine = 1
    executor = poptorch.trainingModel(model, optimizer=optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # gives each group an initial_lr
    optimizer.defaults["odd"] = optimizer.defaults["even"] = 1
    executor(torch.randn(4, 3))
    for _ in range(2):
        executor.setOptimizer(optimizer)
    messages = [record.getMessage() for record in caplog.records if "unexpected" in record.getMessage()]
    assert sum("unexpected group 0 attribute in SGD optimizer: [initial_lr]" in message for message in messages) == 1
    assert sum("unexpected default group variable in SGD optimizer: [even, odd]" in message for message in messages) == 1
    assert not any("mine" in message for message in messages)


def test_python_code_of_optimizers_is_warned_of_every_time(caplog):
    class Mine(torch.optim.SGD):
        pass

    class Poptorchs(poptorch.optim.AdamW):
        pass

    for make in (lambda p: Mine(p, lr=0.1), Poptorchs, lambda p: Mine(p, lr=0.1)):
        trained(make)
    for make in (torch.optim.AdamW, torch.optim.Adam, poptorch.optim.LAMB, lambda p: poptorch.optim.SGD(p, lr=0.1)):
        trained(make)
    messages = [
        record.getMessage() for record in caplog.records if "Poptorch does not run Python optimizer code directly" in record.getMessage()
    ]
    assert [message.split(":")[0] for message in messages] == ["Mine", "Poptorchs", "Mine"]


def test_parameters_in_no_group_have_the_optimizers_defaults():
    results = []
    for listed in (True, False):
        torch.manual_seed(0)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters() if listed else [model.layer.bias], lr=0.5)
        poptorch.trainingModel(model, optimizer=optimizer)(torch.ones(4, 3))
        results.append(model.layer.weight.detach().clone())
    assert torch.equal(*results)


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
