"""Between an optimizer object on the host and the update that the device applies: its rule, its state, the loss scale."""

from __future__ import annotations

import copy
import dataclasses
import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

import torch

from ipu_model.runtime.device.rules import Rule, apply_update, complete_state
from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.device.state import DeviceMemory
from ipu_model.runtime.errors import Error
from ipu_model.runtime.gradients.loss_scaling import LossScaler
from ipu_model.runtime.gradients.reduction import Reduction

from .. import optim
from ..optim import HYPERPARAMETERS, State, values_of
from ..options import Options
from .host_module import HostModule
from .optimizer_rule import build_rule, device_values, group_from_values, is_constant, optimizer_kind, warn_of_python_code
from .run_settings import keep_running_means

logger = logging.getLogger("poptorch::python")
_SEPARATOR = "___"
_LOSS_SCALE = "lossScaling_FLOAT"


def adapt_options(options: Options, optimizer: Any) -> None:
    """Accumulators in half keep running means, so that they do not overflow; the executor's own options say so."""
    if _accumulates_in_half(optimizer):
        keep_running_means(options)


def _accumulates_in_half(optimizer: Any) -> bool:
    return getattr(optimizer, "accum_type", torch.float32) == torch.float16 and not getattr(optimizer, "use_combined_accum", False)


class OptimizerLink:
    """What trains a model: an optimizer with the state that the device keeps for it, from attachment on.

    Attributes:
        optimizer: the host's object, whose values count as they were when it was last set.
        scaler: the loss scale of the device.
    """

    def __init__(self, optimizer: Any, host: HostModule, memory: DeviceMemory, settings: RunSettings) -> None:
        optimizer_kind(optimizer)
        warn_of_python_code(optimizer)
        self.optimizer = optimizer
        self._host, self._memory, self._settings = host, memory, settings
        self.scaler = self._fixed_scaler(optimizer)
        self._rule: Optional[Rule] = None  # what the device was compiled with, once it is attached
        self._trainable: Sequence[str] = ()
        self._indices: List[int] = []  # of the trainable parameters among all
        self._pending: Optional[State] = None  # device state that is uploaded before the next run
        self._values = values_of(optimizer)  # as they were set last
        self._compiled: Optional[List[Dict[str, Any]]] = None  # the groups' values that constant ones must keep
        self._overrides: Dict[str, Dict[str, float]] = {}  # loaded values in use, by parameter, over what the optimizer says
        self._expected = _attributes(optimizer)
        self._warned: Set[str] = set()
        self._level = logging.DEBUG if settings.expects_any_attribute else logging.WARNING

    # ---- what the device computes with

    @property
    def rule(self) -> Rule:
        """The update rule: as attached, or as it would be now."""
        return self._rule or self._fresh_rule()

    @property
    def draws_random_numbers(self) -> bool:
        """Whether an update does."""
        return self.rule.is_stochastic

    def reduction(self) -> Reduction:
        """How gradients combine."""
        said = self._settings
        return Reduction(said.is_mean_reduction, said.is_running_mean, self.rule.accumulator_dtype)

    def update(self, gradients: Any) -> None:
        """Apply reduced gradients, without loss scale, to the device's weights."""
        if self._trainable:
            state = self._memory.state
            rule = self.rule
            if rule.is_stochastic:
                state.random.start_update()
            apply_update(rule, self._trainable, [state.parameters[index] for index in self._indices], gradients, state.optimizer)

    def _fresh_rule(self) -> Rule:
        names: Dict[Any, str] = {parameter: name for name, parameter in self._host.parameters.items()}
        rule = build_rule(self.optimizer, names, self._settings.is_stochastic_rounding)
        groups = self._memory.state.groups if self._memory.is_attached else {}
        slices = {name: groups[index].num_groups for index, name in enumerate(names.values()) if index in groups}
        return dataclasses.replace(rule, num_slices=slices)

    def _fixed_scaler(self, optimizer: Any) -> LossScaler:
        return LossScaler(getattr(optimizer, "loss_scaling", 1.0), self._settings.is_automatic_loss_scaling, self._memory.device)

    # ---- when the device comes and goes

    def attach(self, trainable: Sequence[str]) -> None:
        """Make the state for trainable parameters, whose weights are on the device; loaded state waits for the next run."""
        names = list(self._host.parameters)
        self._compiled = self._compiled or self._values[1]
        self._trainable, self._indices = trainable, [names.index(name) for name in trainable]
        self.scaler = self._fixed_scaler(self.optimizer)
        self._rule = self._with_overrides(self._fresh_rule())
        self._take_waiting()
        self._complete()

    def _take_waiting(self) -> None:
        waiting = optim.connect(self.optimizer, self)
        if waiting is not None:
            self._pending, self._values = waiting

    def detach(self) -> None:
        """Read the state back before the device is let go."""
        self._pending = self.device_state()
        self._rule = None

    def release(self) -> None:
        """Leave the state with the optimizer; the next attachment is of a model compiled anew."""
        self._compiled = None
        optim.disconnect(self.optimizer, self, self._values)

    def before_run(self) -> None:
        """Upload what was loaded; what it leaves out keeps the device's value."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        stored = self._memory.state.optimizer.by_parameter
        for entry, value in (pending["ipu_state"] or {}).items():
            key, _, name = entry.partition(_SEPARATOR)
            if name in stored and key in stored[name]:  # lossScaleUpdateFactor follows from the next gradients
                stored[name][key].copy_(value)
        parameters = dict(pending["ipu_param"] or {})
        if _LOSS_SCALE in parameters:
            scale = float(parameters.pop(_LOSS_SCALE))
            if scale != float(self.scaler.scale):
                self.scaler = LossScaler(scale, self.scaler.is_automatic, self._memory.device)
        for entry, value in parameters.items():
            key, _, name = entry.partition(f"{_SEPARATOR}specific{_SEPARATOR}")
            self._overrides.setdefault(name, {})[key] = float(value)
        self._rule = self._with_overrides(self.rule)

    def _complete(self) -> None:
        state = self._memory.state
        complete_state(self.rule, self._trainable, [state.parameters[index] for index in self._indices], state.optimizer)

    def _with_overrides(self, rule: Rule) -> Rule:
        """Loaded values, in a group of its own for each parameter that they change."""
        groups, group_of = list(rule.groups), dict(rule.group_of)
        for name, values in self._overrides.items():
            if name in group_of:
                group = group_from_values(rule, groups[group_of[name]], values, float(self.scaler.scale))
                if group != groups[group_of[name]]:
                    group_of[name] = len(groups)
                    groups.append(group)
        return dataclasses.replace(rule, groups=groups, group_of=group_of)

    # ---- another optimizer, or other values

    def replace(self, optimizer: Any, is_compiled: bool) -> None:
        """Use an optimizer's present values from the next run on; the device's state stays.

        Raises:
            AssertionError: unsupported type, or another number of parameter groups.
            ValueError: accumulation in half, which the compiled model does not have.
            Error: a constant attribute with another value than the compiled one.
        """
        optimizer_kind(optimizer)
        if optimizer is not self.optimizer:
            warn_of_python_code(optimizer)
        if is_compiled:
            self._check_replacement(optimizer)
        if optimizer is not self.optimizer:
            optim.disconnect(self.optimizer, self, self._values)
        waiting = optim.waiting_at(optimizer) if optimizer is self.optimizer else None
        values, last = values_of(optimizer), self._values if waiting is None else waiting.values
        self.optimizer, self._values = optimizer, values
        if values != last:
            self._overrides = {}
            if self._pending is not None:
                self._pending = self._without_values(self._pending)
            if waiting is not None:
                optim.keep_waiting(optimizer, optim.Waiting(self._without_values(waiting.state), values))
        if self._rule is not None:
            self._take_waiting()
            self._refresh(values != last)

    def _without_values(self, state: State) -> State:
        """Loaded state over which the optimizer's own values win: an automatic loss scale is none of them."""
        kept = {_LOSS_SCALE} if self._settings.is_automatic_loss_scaling else set()
        return {**state, "ipu_param": {name: value for name, value in (state["ipu_param"] or {}).items() if name in kept}}

    def use_settings(self, settings: RunSettings) -> None:
        """Other settings, which follow from another optimizer before the model is compiled."""
        self._settings = settings

    def _refresh(self, is_changed: bool) -> None:
        compiled, fresh = self.rule, self._fresh_rule()
        if is_changed and not self.scaler.is_automatic:
            self.scaler = self._fixed_scaler(self.optimizer)
        merged = dataclasses.replace(
            fresh, flags=compiled.flags, state_dtypes=compiled.state_dtypes, accumulator_dtype=compiled.accumulator_dtype
        )
        self._rule = self._with_overrides(merged)
        self._complete()

    def _check_replacement(self, optimizer: Any) -> None:
        if _accumulates_in_half(optimizer) and not self._settings.is_running_mean:
            raise ValueError("The model is already compiled with accumulation in float32: destroy() it before accumulating in half")
        groups, expected = self._compiled or self._values[1], optimizer.param_groups
        assert len(groups) == len(expected), f"The number of parameter groups is fixed at compilation: {len(groups)}, got {len(expected)}"
        self._warn_of_unexpected_attributes(optimizer)
        for index, (before, now) in enumerate(zip(groups, optimizer.param_groups)):
            for name, value in before.items():
                if name in HYPERPARAMETERS and now.get(name, value) != value and is_constant(self.optimizer, name, value):
                    raise Error(
                        f"Optimizer attribute {name} of group {index} is constant: the model was compiled with {value!r}, got "
                        f"{now[name]!r}. Mark it with variable_attrs.markAsVariable({name!r}) before compiling, or destroy() the model."
                    )

    def _warn_of_unexpected_attributes(self, optimizer: Any) -> None:
        kind = type(optimizer).__name__
        for what, names in _attributes(optimizer).items():
            unexpected = sorted(names - self._expected.get(what, names))
            message = f"unexpected {what} in {kind} optimizer: [{', '.join(unexpected)}]. The model was wrapped without it: no effect."
            if unexpected and message not in self._warned:
                self._warned.add(message)
                logger.log(self._level, message)

    # ---- where the optimizer's state is (optim.StateSource)

    def device_state(self) -> State:
        """`ipu_state` by "State___parameter" and `ipu_param` by "value___specific___parameter"; what was loaded until the next run.

        Values that are the same for every call are not in `ipu_param`.
        """
        if self._pending is not None:
            return copy.deepcopy(self._pending)
        state = {
            f"{key}{_SEPARATOR}{name}": value.detach().cpu().clone()
            for name, stored in self._memory.state.optimizer.by_parameter.items()
            for key, value in stored.items()
        }
        scale = self.scaler.scale.cpu().clone()
        if self.scaler.is_automatic:
            state["lossScaleUpdateFactor"] = self.scaler.last_factor.cpu().clone()
        return {"ipu_state": state, "ipu_param": {_LOSS_SCALE: scale, **self._device_parameters(float(scale))}}

    def _device_parameters(self, scale: float) -> Dict[str, torch.Tensor]:
        found: Dict[str, torch.Tensor] = {}
        for name in self._trainable:
            group: Mapping[str, Any] = self.rule.groups[self.rule.group_of[name]]
            for key, (value, sources) in device_values(self.rule, group, scale).items():
                if not all(is_constant(self.optimizer, source, group.get(source)) for source in sources):
                    found[f"{key}{_SEPARATOR}specific{_SEPARATOR}{name}"] = torch.tensor(float(value))
        return found

    def load(self, device_state: Optional[State]) -> None:
        """Use another state from the next run on, over the host's values as they are now."""
        self._values = values_of(self.optimizer)
        self._overrides = {}
        self._pending = device_state
        if self._rule is not None:
            self._refresh(is_changed=True)


def _attributes(optimizer: Any) -> Dict[str, Set[str]]:
    """Names of an optimizer's attributes, by what they belong to."""
    groups = {f"group {index} attribute": set(group) for index, group in enumerate(optimizer.param_groups)}
    return {"optimizer attribute": set(vars(optimizer)), "default group variable": set(optimizer.defaults), **groups}
