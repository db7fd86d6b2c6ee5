"""What a weight update costs: derived by hand from the rules' formulas, for every optimizer and type of state."""

from __future__ import annotations

import pytest
import torch

import ipu_model
import poptorch
from ipu_model.runtime.device.rules import OptimizerState, Rule, apply_update, complete_state, update_cost
from poptorch import optim

HALF = torch.float16


class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        return poptorch.identity_loss(self.layer(x), reduction="mean")


def settings(make_optimizer, **training):
    model = Loss()
    options = poptorch.Options()
    options.Training.gradientAccumulation(2)
    executor = poptorch.trainingModel(model, options, make_optimizer(model.parameters()))
    return ipu_model.trace(executor, torch.ones(2, 4))[1]


@pytest.mark.parametrize(
    ("make_optimizer", "state_bytes", "sum_bytes", "has_sum"),
    [
        (lambda p: optim.SGD(p, lr=0.1), 0, 4, True),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4, 4, True),
        (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, velocity_accum_type=HALF), 2, 4, True),
        (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, use_combined_accum=True), 4, 4, False),
        (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, use_combined_accum=True, accum_type=HALF), 2, 2, False),
        (lambda p: optim.Adam(p), 8, 4, True),
        (lambda p: optim.AdamW(p, accum_type=HALF, first_order_momentum_accum_type=HALF), 2 + 4, 2, True),
        (lambda p: optim.LAMB(p, first_order_momentum_accum_type=HALF, second_order_momentum_accum_type=HALF), 4, 4, True),
        (lambda p: optim.RMSprop(p), 4, 4, True),
        (lambda p: optim.RMSprop(p, momentum=0.9, centered=True, first_order_momentum_accum_type=HALF), 4 + 2 + 2, 4, True),
    ],
)
def test_state_counts_with_its_own_types(make_optimizer, state_bytes, sum_bytes, has_sum):
    found = settings(make_optimizer).optimizer
    assert (found.state_bytes, found.gradient_bytes, not found.is_sum_in_state) == (state_bytes, sum_bytes, has_sum)


SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "velocity_scaling": 1.0}
RMSPROP = {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False}


@pytest.mark.parametrize(
    ("kind", "group", "passes"),
    [
        ("sgd", SGD, 1),  # w - lr g
        ("sgd", {**SGD, "momentum": 0.9}, 3),  # m v, + g, w - lr v
        ("sgd", {**SGD, "momentum": 0.9, "weight_decay": 0.1}, 4),
        ("rmsprop", RMSPROP, 6),  # alpha s, + (1 - alpha) g^2, root, + eps, quotient, w - lr
        ("rmsprop", {**RMSPROP, "momentum": 0.9}, 8),
    ],
)
def test_passes_are_the_operations_of_the_formula(kind, group, passes):
    assert update_cost(Rule(kind, [group], {}), 0).passes == passes
    assert update_cost(Rule(kind, [group], {}, max_grad_norm=1.0), 0).passes == passes + 2


def test_what_costs_is_what_the_update_keeps():
    """The cost is of the tensors that a real update leaves behind."""
    rule = Rule("rmsprop", [{**RMSPROP, "momentum": 0.9}], {"w": 0}, {"Accl1": HALF})
    weight, state = torch.ones(5), OptimizerState()
    complete_state(rule, ["w"], [weight], state)
    apply_update(rule, ["w"], [weight], [torch.ones(5)], state)
    assert update_cost(rule, 0).state_bytes * 5 == sum(value.numel() * value.element_size() for value in state.by_parameter["w"].values())


def test_another_poptorch_has_no_workload():
    with pytest.raises(TypeError, match=r"expected a model wrapped by the IPU Model's poptorch, got torch\.nn\.modules\.linear\.Linear"):
        ipu_model.estimate(torch.nn.Linear(2, 2), torch.ones(1, 2))


def test_the_dearest_group_in_use_counts():
    """Defaults that no group has cost nothing; of the groups that there are the one with most passes counts."""

    def passes(*decays):
        def make(parameters):
            groups = [{"params": [parameter], "weight_decay": decay} for parameter, decay in zip(parameters, decays)]
            return torch.optim.SGD(groups, lr=0.1, weight_decay=0.5)

        return settings(make).optimizer.passes

    assert passes(0.0, 0.0) == 1  # w - lr g
    assert passes(0.0, 0.1) == passes(0.1, 0.1) == 2  # g + d w before it
