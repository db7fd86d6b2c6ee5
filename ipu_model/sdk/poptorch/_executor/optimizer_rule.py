"""From an optimizer object to the rule that the device applies."""

from __future__ import annotations

import copy
import logging
from typing import Any, Dict, Mapping, Sequence, Tuple

import torch

from ipu_model.runtime.device.rules import Rule
from ipu_model.runtime.errors import Error

from .. import optim

logger = logging.getLogger("poptorch::python")
_KINDS: Tuple[Tuple[type, str], ...] = (  # AdamW first: newer torch derives it from Adam
    (torch.optim.AdamW, "adamw"),
    (torch.optim.Adam, "adam"),
    (torch.optim.SGD, "sgd"),
    (torch.optim.RMSprop, "rmsprop"),
    (optim.LAMB, "lamb"),
)
_FLAGS = {"sgd": ("use_combined_accum",), "lamb": ("bias_correction",), "rmsprop": ("use_tf_variant",)}  # AdamW corrects its bias always
_ALWAYS_CONSTANT = ("betas", "alpha", "nesterov", "centered", "amsgrad")
_DEFAULTS = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "eps": 1e-8, "velocity_scaling": 1.0, "loss_scaling": 1.0}


def optimizer_kind(optimizer: Any) -> str:
    """The device's name of an optimizer; AssertionError for an unsupported type."""
    kind = next((name for cls, name in _KINDS if isinstance(optimizer, cls)), None)
    assert kind is not None, (
        f"Unsupported optimizer type {type(optimizer).__name__}: use SGD, Adam, AdamW, RMSprop (torch.optim or poptorch.optim) or "
        "poptorch.optim.LAMB"
    )
    return kind


def warn_of_python_code(optimizer: Any) -> None:
    """Say that what a subclass adds does not run."""
    bases = type(optimizer).__bases__
    if torch.optim.Optimizer not in bases and optim.Optimizer not in bases and type(optimizer) is not torch.optim.AdamW:
        logger.warning(
            "%s: Poptorch does not run Python optimizer code directly. The device applies the update rule of the base class.",
            type(optimizer).__name__,
        )


def is_constant(optimizer: Any, name: str, value: Any) -> bool:
    """Whether an attribute with this value is fixed when the model is compiled."""
    if isinstance(optimizer, optim.Optimizer):
        return optimizer.variable_attrs.isConstant(name)
    if name == "weight_decay" and isinstance(optimizer, torch.optim.AdamW):
        return value == 0.01  # torch's default
    return name in _ALWAYS_CONSTANT or (name in _DEFAULTS and value == _DEFAULTS[name])


def build_rule(optimizer: Any, names: Mapping[torch.nn.Parameter, str], is_stochastic: bool) -> Rule:
    """Read an optimizer's hyper-parameters as they are now. Parameters in no group have the optimizer's defaults, in a last group.

    Raises:
        AssertionError: unsupported optimizer, or `centered` differs between groups.
        ValueError: amsgrad.
        Error: values that the device refuses.
    """
    kind = optimizer_kind(optimizer)
    given = [*optimizer.param_groups, optimizer.defaults]
    groups = [{key: copy.copy(value) for key, value in group.items() if key != "params"} for group in given]
    for group in groups:
        _check_group(group)
        group.setdefault("velocity_scaling", 1.0)
    assert len({group.get("centered", False) for group in groups[:-1]}) == 1, "centered must be equal in all parameter groups"
    if getattr(optimizer, "loss_scaling", 1.0) == 0:
        raise Error("Optimizer attribute loss_scaling must not be 0.")
    flags = {name: getattr(optimizer, name) for name in _FLAGS.get(kind, ()) if hasattr(optimizer, name)}
    if kind == "sgd":
        flags["is_momentum_variable"] = not is_constant(optimizer, "momentum", 0.0)
    listed = {names[p]: i for i, group in enumerate(optimizer.param_groups) for p in group["params"] if p in names}
    return Rule(
        kind=kind,
        groups=groups,
        group_of={**dict.fromkeys(names.values(), len(groups) - 1), **listed},
        state_dtypes=_state_dtypes(kind, optimizer),
        flags=flags,
        max_grad_norm=getattr(optimizer, "max_grad_norm", float("inf")),
        is_stochastic=is_stochastic,
        accumulator_dtype=getattr(optimizer, "accum_type", torch.float32),
    )


def _check_group(group: Mapping[str, Any]) -> None:
    if group.get("amsgrad"):
        raise ValueError("amsgrad=True is not supported: use Adam or AdamW without it")
    for name in ("momentum", "dampening"):
        if group.get(name, 0.0) < 0:
            raise Error(f"Optimizer attribute {name} must not be negative, got {group[name]}.")
    if group.get("velocity_scaling", 1.0) <= 0:
        raise Error(f"Optimizer attribute velocity_scaling must be positive, got {group['velocity_scaling']}.")
    if group.get("nesterov") and group.get("dampening", 0.0) > 0:
        raise Error("Nesterov momentum needs dampening 0.")
    if group.get("maximize"):
        raise NotImplementedError("maximize=True is not implemented by the IPU Model. Nearest alternative: negate the loss.")


def _state_dtypes(kind: str, optimizer: Any) -> Dict[str, torch.dtype]:
    first = getattr(optimizer, "first_order_momentum_accum_type", torch.float32)
    second = getattr(optimizer, "second_order_momentum_accum_type", torch.float32)
    if kind == "sgd":
        velocity = getattr(optimizer, "velocity_accum_type", torch.float32)
        return {"Accl": getattr(optimizer, "accum_type", torch.float32), "Accl1": velocity}
    if kind == "rmsprop":
        return {"Accl1": second, "Accl2": first, "Accl3": first}
    return {"Accl1": first, "Accl2": second}


Value = Tuple[float, Sequence[str]]


def device_values(rule: Rule, group: Mapping[str, Any], loss_scaling: float) -> Dict[str, Value]:
    """Hyper-parameters of a group as the device holds them: name to (value, attributes that it follows from)."""
    lr, decay = group["lr"], group["weight_decay"]
    if rule.kind == "sgd":
        return _sgd_values(group, rule.flags, loss_scaling)
    common = {"learningRate": (lr, ["lr"]), "weightDecay": (decay, ["weight_decay"])}
    if rule.kind == "rmsprop":
        return {**common, "adaptiveEps": (group["eps"], ["eps"]), "adaptiveMomentum": (group["momentum"], ["momentum"])}
    beta1, beta2 = group["betas"]
    adam: Dict[str, Value] = {
        **common,
        "adamBeta1": (beta1, ["betas"]),
        "adamBeta2": (beta2, ["betas"]),
        "adamEps": (group["eps"], ["eps"]),
    }
    return {**adam, "maxWeightNorm": (group["max_weight_norm"], ["max_weight_norm"])} if rule.kind == "lamb" else adam


def _sgd_values(group: Mapping[str, Any], flags: Mapping[str, Any], loss_scaling: float) -> Dict[str, Value]:
    lr, decay, momentum, velocity_scaling = group["lr"], group["weight_decay"], group["momentum"], group["velocity_scaling"]
    undamped = 1 - group["dampening"]
    if not (momentum or flags.get("is_momentum_variable")):
        scaled = lr * undamped
        return {
            "scaledLearningRate0": (scaled / loss_scaling, ["lr", "dampening", "loss_scaling"]),
            "weightDecayScaleFactor0": (1 - scaled * decay, ["lr", "dampening", "weight_decay"]),
        }
    rest = "1" if flags.get("use_combined_accum") else "2"
    return {
        "scaledWeightDecay1": (undamped * velocity_scaling * decay, ["dampening", "velocity_scaling", "weight_decay"]),
        f"scaledLearningRate{rest}": (lr / velocity_scaling, ["lr", "velocity_scaling"]),
        f"scaledMomentum{rest}": (momentum, ["momentum"]),
        f"dampeningScaleFactor{rest}": (undamped * velocity_scaling / loss_scaling, ["dampening", "velocity_scaling", "loss_scaling"]),
    }


def group_from_values(rule: Rule, group: Mapping[str, Any], values: Mapping[str, float], loss_scaling: float) -> Dict[str, Any]:
    """The inverse of `device_values`: a group with what values on the device say, and its own where there is none.

    The device has float32: a value that the group already has in that precision stays as it is.
    """
    present = {name: value for name, (value, _) in device_values(rule, group, loss_scaling).items()}
    changed = {name: value for name, value in values.items() if name in present and float(torch.tensor(float(present[name]))) != value}
    if not changed:
        return dict(group)
    if rule.kind == "sgd":
        return {**group, **_sgd_group({**present, **changed}, group, loss_scaling)}
    names = {"learningRate": "lr", "weightDecay": "weight_decay", "adamEps": "eps", "adaptiveEps": "eps", "adaptiveMomentum": "momentum"}
    names["maxWeightNorm"] = "max_weight_norm"
    found: Dict[str, Any] = {names[name]: value for name, value in changed.items() if name in names}
    if "betas" in group:
        found["betas"] = (changed.get("adamBeta1", group["betas"][0]), changed.get("adamBeta2", group["betas"][1]))
    return {**group, **found}


def _sgd_group(values: Mapping[str, float], group: Mapping[str, Any], loss_scaling: float) -> Dict[str, Any]:
    if "scaledLearningRate0" in values:
        scaled = values["scaledLearningRate0"] * loss_scaling
        decay = (1 - values["weightDecayScaleFactor0"]) / scaled if scaled else 0.0
        return {"lr": scaled / (1 - group["dampening"]), "weight_decay": decay}
    rest, scaling = ("1" if "scaledLearningRate1" in values else "2"), group["velocity_scaling"]
    undamped = values[f"dampeningScaleFactor{rest}"] * loss_scaling / scaling
    return {
        "lr": values[f"scaledLearningRate{rest}"] * scaling,
        "momentum": values[f"scaledMomentum{rest}"],
        "dampening": 1 - undamped,
        "weight_decay": values["scaledWeightDecay1"] / (undamped * scaling) if undamped else 0.0,
    }
