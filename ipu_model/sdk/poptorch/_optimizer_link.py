"""Between an optimizer object on the host and the optimizer state on the device."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Dict, Mapping

import torch

from ipu_model.runtime.update import OptimizerState, Rule

from . import optim
from ._optimizer_rule import build_rule, optimizer_kind as optimizer_kind

logger = logging.getLogger("poptorch::python")
_SEPARATOR = "___"
_ALWAYS_CONSTANT = ("betas", "alpha", "nesterov", "centered", "amsgrad")
_CONSTANT_AT_DEFAULT = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "eps": 1e-8, "velocity_scaling": 1.0}


def initial_rule(executor: Any) -> Rule:
    """The rule at attachment; an optimizer with loaded state uploads it."""
    optimizer = executor._optimizer
    if isinstance(optimizer, optim.Optimizer):
        optimizer._executor = executor
        _upload(executor, optimizer)
    return _rule(executor)


def refreshed_rule(executor: Any, compiled: Rule, previous: Any) -> Rule:
    """The rule after setOptimizer: variable attributes as they are now, constant ones as compiled."""
    optimizer = executor._optimizer
    fresh = _rule(executor)
    groups = [
        {key: before[key] if key in before and _is_constant(optimizer, key, before[key]) else value for key, value in now.items()}
        for before, now in zip(compiled.groups, fresh.groups)
    ]
    if isinstance(optimizer, optim.Optimizer):
        if previous is not optimizer and isinstance(previous, optim.Optimizer):
            previous._executor = None
        optimizer._executor = executor
        _upload(executor, optimizer)
    if not executor._scaler.is_automatic:
        executor._scaler = executor._build_scaler()
    return dataclasses.replace(fresh, groups=groups, flags=compiled.flags, state_dtypes=compiled.state_dtypes)


def _rule(executor: Any) -> Rule:
    names = {p: name for name, p in executor._model.named_parameters()}
    is_stochastic = bool(executor._options._Popart.options.get("enableStochasticRounding"))
    return build_rule(executor._optimizer, names, is_stochastic)


def _is_constant(optimizer: Any, key: str, compiled: Any) -> bool:
    if isinstance(optimizer, optim.Optimizer):
        attributes = optimizer.variable_attrs
        return key in attributes._known and attributes.isConstant(key)
    return key in _ALWAYS_CONSTANT or (key in _CONSTANT_AT_DEFAULT and compiled == _CONSTANT_AT_DEFAULT[key])


def device_state(executor: Any) -> Dict[str, Any]:
    """The device's optimizer state: `ipu_state` by "State___parameter", `ipu_param` with the loss scale."""
    state = {
        f"{key}{_SEPARATOR}{name}": value.detach().cpu().clone()
        for name, stored in executor._state.optimizer.by_parameter.items()
        for key, value in stored.items()
    }
    return {"ipu_state": state, "ipu_param": {"lossScaling_FLOAT": executor._scaler.scale.cpu().clone()}}


def keep_state_on_host(executor: Any) -> None:
    """Read the optimizer state back before the device is let go."""
    optimizer = executor._optimizer
    if isinstance(optimizer, optim.Optimizer):
        optimizer._loaded = device_state(executor)
        optimizer._executor = None


def _upload(executor: Any, optimizer: Any) -> None:
    """Put loaded state on the device; entries that are missing keep the device's value."""
    loaded = optimizer._loaded
    optimizer._loaded = None
    if loaded is None or loaded["ipu_state"] is None:
        return
    merge_state(executor._state.optimizer, loaded["ipu_state"], executor._device)
    if executor._options._Popart.options.get("automaticLossScalingSettings.enabled"):
        executor._scaler.scale = loaded["ipu_param"]["lossScaling_FLOAT"].to(executor._device)


def merge_state(state: OptimizerState, entries: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Copy "State___parameter" entries into optimizer state."""
    for entry, value in entries.items():
        key, name = entry.split(_SEPARATOR, 1)
        state.by_parameter.setdefault(name, {})[key] = value.to(device).clone()
