"""Section 18.5: arguments of optimizers, and names that they may have."""

from __future__ import annotations

import inspect

import pytest
import torch
from shared_models import Regression as Model, set_group, trained

import poptorch

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
