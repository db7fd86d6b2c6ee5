"""From an optimizer object to the rule that the device applies."""

from __future__ import annotations

import copy
from typing import Any, Dict, Mapping, Tuple

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.update import Rule

from . import optim

_KINDS: Tuple[Tuple[type, str], ...] = (  # AdamW first: newer torch derives it from Adam
    (torch.optim.AdamW, "adamw"),
    (torch.optim.Adam, "adam"),
    (torch.optim.SGD, "sgd"),
    (torch.optim.RMSprop, "rmsprop"),
    (optim.LAMB, "lamb"),
)
_FLAGS = ("use_combined_accum", "bias_correction", "use_tf_variant")


def optimizer_kind(optimizer: Any) -> str:
    """The device's name of an optimizer; AssertionError for an unsupported type."""
    kind = next((name for cls, name in _KINDS if isinstance(optimizer, cls)), None)
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
