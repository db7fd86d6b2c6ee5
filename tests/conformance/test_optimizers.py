"""Section 6: optimizers."""

from __future__ import annotations

import pytest
import torch
from shared_models import Regression as Model, set_group, trained, values_on_device as parameters_of
from torch import nn

import poptorch


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
