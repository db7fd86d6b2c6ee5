"""Between an optimizer object on the host and the optimizer state on the device."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Dict, Mapping, Set

import torch

from ipu_model.runtime.device.rules import OptimizerState, Rule

from .. import optim
from ..enums import MeanReductionStrategy
from .optimizer_rule import build_rule, device_values, optimizer_kind as optimizer_kind

logger = logging.getLogger("poptorch::python")
_SEPARATOR = "___"
_TORCHS_OWN = {"defaults", "state", "param_groups", "variable_attrs"}
_OF_SCHEDULERS = {"params", "initial_lr"}
_ALWAYS_CONSTANT = ("betas", "alpha", "nesterov", "centered", "amsgrad")
_CONSTANT_AT_DEFAULT = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "eps": 1e-8, "velocity_scaling": 1.0}


def choose_reduction_strategy(executor: Any) -> None:
    """Accumulators in half keep running means, so that they do not overflow; the executor's own options say so."""
    optimizer, training = executor._optimizer, executor._options.Training
    if _accumulates_in_half(optimizer) and training.meanAccumulationAndReplicationReductionStrategy != MeanReductionStrategy.Running:
        executor._options._unfreeze()
        training.setMeanAccumulationAndReplicationReductionStrategy(MeanReductionStrategy.Running)
        executor._options._freeze()


def _accumulates_in_half(optimizer: Any) -> bool:
    return getattr(optimizer, "accum_type", torch.float32) == torch.float16 and not getattr(optimizer, "use_combined_accum", False)


def check_replacement(executor: Any, optimizer: Any) -> None:
    """Refuse or warn of what a compiled model cannot take over from an optimizer.

    Raises:
        AssertionError: unsupported type, or another number of parameter groups.
        ValueError: accumulation in half, which the compiled model does not have.
    """
    optimizer_kind(optimizer)
    training = executor._options.Training
    if executor._executable is None:
        executor._optimizer = optimizer
        choose_reduction_strategy(executor)
        return
    if _accumulates_in_half(optimizer) and training.meanAccumulationAndReplicationReductionStrategy != MeanReductionStrategy.Running:
        raise ValueError("The model is already compiled with accumulation in float32: destroy() it before accumulating in half")
    before = len(executor._rule.groups) if executor._is_attached else len(executor._optimizer.param_groups)
    now = len(optimizer.param_groups)
    assert before == now, f"The number of parameter groups is fixed at compilation: {before}, got {now}"
    _warn_of_unexpected_attributes(executor, optimizer)


def _attributes(optimizer: Any) -> Dict[Any, Set[str]]:
    """Names of an optimizer's public attributes under None, and of each group's by its number."""
    own = {name for name in vars(optimizer) if not name.startswith("_")} - _TORCHS_OWN
    return {None: own, **{index: set(group) - _OF_SCHEDULERS for index, group in enumerate(optimizer.param_groups)}}


def _warn_of_unexpected_attributes(executor: Any, optimizer: Any) -> None:
    level = logging.DEBUG if executor._options._relax_optimizer_checks else logging.WARNING
    for index, names in _attributes(optimizer).items():
        for name in sorted(names - executor._expected_attributes.get(index, names)):
            where = "optimizer" if index is None else f"group {index}"
            message = f"unexpected {where} attribute {name!r}: the model was compiled without it, and it has no effect"
            if message not in executor._warned_attributes:
                executor._warned_attributes.add(message)
                logger.log(level, message)


def initial_rule(executor: Any) -> Rule:
    """The rule at attachment; an optimizer with loaded state uploads it."""
    optimizer = executor._optimizer
    executor._expected_attributes, executor._warned_attributes = _attributes(optimizer), set()
    if isinstance(optimizer, optim.Optimizer):
        optimizer._executor = executor
        _upload(executor, optimizer)
    return rule_of(executor)


def refreshed_rule(executor: Any, compiled: Rule, previous: Any) -> Rule:
    """The rule after setOptimizer: variable attributes as they are now, constant ones as compiled."""
    optimizer = executor._optimizer
    fresh = rule_of(executor)
    groups = [
        {key: before[key] if key in before and _is_constant(optimizer, key, before[key]) else value for key, value in now.items()}
        for before, now in zip(compiled.groups, fresh.groups)
    ]
    if isinstance(optimizer, optim.Optimizer):
        if previous is not optimizer and isinstance(previous, optim.Optimizer):
            previous._executor = None
        optimizer._executor = executor
        _upload(executor, optimizer)
    if not executor._scaler.is_automatic and not _is_constant(optimizer, "loss_scaling", None):
        executor._scaler = executor._build_scaler()
    return dataclasses.replace(fresh, groups=groups, flags=compiled.flags, state_dtypes=compiled.state_dtypes)


def rule_of(executor: Any) -> Rule:
    """The rule that follows from the optimizer as it is now."""
    names = {p: name for name, p in executor._model.named_parameters()}
    is_stochastic = bool(executor._options._Popart.options.get("enableStochasticRounding"))
    return build_rule(executor._optimizer, names, is_stochastic)


def _is_constant(optimizer: Any, key: str, compiled: Any) -> bool:
    if isinstance(optimizer, optim.Optimizer):
        attributes = optimizer.variable_attrs
        return key in attributes._known and attributes.isConstant(key)
    return key in _ALWAYS_CONSTANT or (key in _CONSTANT_AT_DEFAULT and compiled == _CONSTANT_AT_DEFAULT[key])


def device_state(executor: Any) -> Dict[str, Any]:
    """The device's optimizer state: `ipu_state` by "State___parameter", `ipu_param` by "value___specific___parameter".

    Values that are the same for every call are not in `ipu_param`.
    """
    state = {
        f"{key}{_SEPARATOR}{name}": value.detach().cpu().clone()
        for name, stored in executor._state.optimizer.by_parameter.items()
        for key, value in stored.items()
    }
    parameters = {"lossScaling_FLOAT": executor._scaler.scale.cpu().clone()}
    if executor._scaler.is_automatic:
        state["lossScaleUpdateFactor"] = executor._scaler.last_factor.cpu().clone()
    for name in executor._trainable_names:
        group = executor._rule.groups[executor._rule.group_of[name]]
        for key, (value, sources) in device_values(executor._rule, group, float(parameters["lossScaling_FLOAT"])).items():
            if not all(_is_constant(executor._optimizer, source, group.get(source)) for source in sources):
                parameters[f"{key}{_SEPARATOR}specific{_SEPARATOR}{name}"] = torch.tensor(float(value))
    return {"ipu_state": state, "ipu_param": parameters}


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
        if _SEPARATOR not in entry:
            continue  # lossScaleUpdateFactor follows from the next gradients
        key, name = entry.split(_SEPARATOR, 1)
        state.by_parameter.setdefault(name, {})[key] = value.to(device).clone()
