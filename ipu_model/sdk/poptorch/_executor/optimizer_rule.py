"""From an optimizer object to the rule that the device applies."""

from __future__ import annotations

import copy
import logging
from typing import Any, Dict, Mapping, Sequence, Set, Tuple

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
_OWN_TYPES = {cls for cls, _ in _KINDS} | {optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop}
_warned_types: Set[type] = set()
_FLAGS = ("use_combined_accum", "bias_correction", "use_tf_variant")


def optimizer_kind(optimizer: Any) -> str:
    """The device's name of an optimizer; AssertionError for an unsupported type."""
    kind = next((name for cls, name in _KINDS if isinstance(optimizer, cls)), None)
    if kind is not None and type(optimizer) not in _OWN_TYPES and type(optimizer) not in _warned_types:
        _warned_types.add(type(optimizer))
        logger.warning(
            "Poptorch does not run the Python code of %s: the device applies the update rule of its base class.", type(optimizer).__name__
        )
    assert kind is not None, (
        f"Unsupported optimizer type {type(optimizer).__name__}: use SGD, Adam, AdamW, RMSprop (torch.optim or poptorch.optim) or "
        "poptorch.optim.LAMB"
    )
    return kind


def build_rule(optimizer: Any, names: Mapping[torch.nn.Parameter, str], is_stochastic: bool) -> Rule:
    """Read an optimizer's hyper-parameters as they are now.

    Raises:
        AssertionError: unsupported optimizer, or `centered` differs between groups.
        ValueError: amsgrad.
        Error: values that the device refuses.
    """
    kind = optimizer_kind(optimizer)
    groups = [{key: copy.copy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    for group in groups:
        _check_group(group)
        group.setdefault("velocity_scaling", 1.0)
    assert len({group.get("centered", False) for group in groups}) == 1, "centered must be equal in all parameter groups"
    return Rule(
        kind=kind,
        groups=groups,
        group_of={names[p]: i for i, group in enumerate(optimizer.param_groups) for p in group["params"] if p in names},
        state_dtypes=_state_dtypes(kind, optimizer),
        flags={name: getattr(optimizer, name) for name in _FLAGS if hasattr(optimizer, name)},
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
        return _sgd_values(group, bool(rule.flags.get("use_combined_accum")), loss_scaling)
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


def _sgd_values(group: Mapping[str, Any], is_combined: bool, loss_scaling: float) -> Dict[str, Value]:
    lr, decay, momentum, velocity_scaling = group["lr"], group["weight_decay"], group["momentum"], group["velocity_scaling"]
    undamped = 1 - group["dampening"]
    if not momentum:
        scaled = lr * undamped
        return {
            "scaledLearningRate0": (scaled / loss_scaling, ["lr", "dampening", "loss_scaling"]),
            "weightDecayScaleFactor0": (1 - scaled * decay, ["lr", "dampening", "weight_decay"]),
        }
    rest = "1" if is_combined else "2"
    return {
        "scaledWeightDecay1": (undamped * velocity_scaling * decay, ["dampening", "velocity_scaling", "weight_decay"]),
        f"scaledLearningRate{rest}": (lr / velocity_scaling, ["lr", "velocity_scaling"]),
        f"scaledMomentum{rest}": (momentum, ["momentum"]),
        f"dampeningScaleFactor{rest}": (undamped * velocity_scaling / loss_scaling, ["dampening", "velocity_scaling", "loss_scaling"]),
    }
