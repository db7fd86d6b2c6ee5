"""PopTorch's optimizers: torch's, with the attributes that the device needs. The device applies its own update rules
(`ipu_model.runtime.device.rules`); the host objects carry hyper-parameters, and work with torch's schedulers.

An argument that is None takes its default, and the device takes it for constant.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Protocol, Tuple

import torch

from ipu_model.runtime.device.rules import OptimizerState, Rule, apply_update, complete_state

logger = logging.getLogger("poptorch::python")
_ACCUMULATION_TYPES = (torch.float16, torch.float32)
_NO_STATE: Dict[str, Any] = {"ipu_state": None, "ipu_param": None}
HYPERPARAMETERS = (
    "lr", "momentum", "dampening", "weight_decay", "nesterov", "velocity_scaling", "betas", "alpha", "eps", "centered", "max_weight_norm",
)  # fmt: skip
Betas = Tuple[float, float]
State = Dict[str, Any]  # `ipu_state` and `ipu_param`
Values = Tuple[float, List[Dict[str, Any]]]


class StateSource(Protocol):
    """Where the state of an optimizer is while a model trains with it."""

    def device_state(self) -> Dict[str, Any]:
        """`ipu_state` and `ipu_param`."""
        ...

    def load(self, device_state: Optional[Dict[str, Any]]) -> None:
        """Use another state from the next run on, and the host's values as they are now."""


class Waiting(NamedTuple):
    """Device state that waits for a device, and what the optimizer said when it was loaded."""

    state: State
    values: Values


def values_of(optimizer: Any) -> Values:
    """What an optimizer says now: its loss scale, and the hyper-parameters of each group."""
    groups = [{name: copy.copy(group[name]) for name in HYPERPARAMETERS if name in group} for group in optimizer.param_groups]
    return getattr(optimizer, "loss_scaling", 1.0), groups


class _DevicePart:
    """An optimizer's state beyond the host: with its source, or waiting for one."""

    def __init__(self) -> None:
        self.source: Optional[StateSource] = None
        self.waiting: Optional[Waiting] = None


class VariableAttributes:
    """Which attributes may change after compilation: what is not marked variable is constant."""

    def __init__(self, variable: Iterable[str], known: Iterable[str]) -> None:
        self._variable = set(variable)
        self._known = set(known)

    def _check(self, name: str) -> None:
        assert name in self._known, f"Unknown attribute {name!r}; known: {sorted(self._known)}"

    def isConstant(self, name: str) -> bool:
        """Whether the attribute is fixed at compile time."""
        return name not in self._variable

    def markAsConstant(self, name: str) -> None:
        """Fix the attribute at compile time."""
        self._check(name)
        self._variable.discard(name)

    def markAsVariable(self, name: str) -> None:
        """Let the attribute change."""
        self._check(name)
        self._variable.add(name)


def _check_state(state_dict: Dict[str, Any]) -> None:
    if not _NO_STATE.keys() <= state_dict.keys():
        raise RuntimeError(
            "Only IPU optimizer states can be loaded onto the IPU: the state dict must come from a poptorch.optim optimizer and have "
            f"'ipu_state' and 'ipu_param'; it has {sorted(state_dict)}"
        )


class Optimizer:
    """What every PopTorch optimizer has beside torch's."""

    loss_scaling: float
    accum_type: torch.dtype
    variable_attrs: VariableAttributes
    defaults: Dict[str, Any]
    _device: _DevicePart

    def _keep(self, given: Dict[str, Any], extras: Dict[str, Any]) -> None:
        """Set extra attributes, which default to those of `extras`; what is given is variable."""
        self._device = _DevicePart()
        for name, default in extras.items():
            value = default if given.get(name) is None else given[name]
            if name.endswith("accum_type"):
                assert value in _ACCUMULATION_TYPES, f"{name} must be torch.float16 or torch.float32, got {value!r}"
            setattr(self, name, value)
        self.variable_attrs = VariableAttributes(_present(**given), [*self.defaults, "loss_scaling"])

    def state_dict(self) -> Dict[str, Any]:
        """torch's state dict with the device's state under `ipu_state` and `ipu_param` (None before attachment)."""
        host = super().state_dict()  # type: ignore[misc]
        source, waiting = self._device.source, self._device.waiting
        return {**host, **(source.device_state() if source is not None else waiting.state if waiting is not None else _NO_STATE)}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load the host's part now; the device's part is uploaded before the next run."""
        _check_state(state_dict)
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in _NO_STATE})  # type: ignore[misc]
        loaded = {key: state_dict[key] for key in _NO_STATE} if state_dict["ipu_state"] is not None else None
        if self._device.source is not None:
            self._device.source.load(loaded)
        else:
            self._device.waiting = None if loaded is None else Waiting(loaded, values_of(self))

    def __getstate__(self) -> Dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_device" and "hook" not in name}
        return {key: value for key, value in state.items() if not callable(value)}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._device = self.__dict__.get("_device") or _DevicePart()  # torch's load_state_dict comes through here too


def connect(optimizer: Any, source: StateSource) -> Optional[Waiting]:
    """From now on the optimizer's state is at the source; returns what was loaded before, for the source to use."""
    if not isinstance(optimizer, Optimizer):
        return None
    waiting, optimizer._device.waiting = optimizer._device.waiting, None
    optimizer._device.source = source
    return waiting


def disconnect(optimizer: Any, source: StateSource, values: Values) -> None:
    """Leave the source's state with the optimizer; `values` were set last."""
    if isinstance(optimizer, Optimizer) and optimizer._device.source is source:
        optimizer._device.waiting = Waiting(source.device_state(), values)
        optimizer._device.source = None


def waiting_at(optimizer: Any) -> Optional[Waiting]:
    """What was loaded into an optimizer whose state is nowhere yet."""
    return optimizer._device.waiting if isinstance(optimizer, Optimizer) else None


def keep_waiting(optimizer: Optimizer, waiting: Waiting) -> None:
    """Let other state wait."""
    optimizer._device.waiting = waiting


def _present(**values: Any) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_MOMENT_TYPES = {"first_order_momentum_accum_type": torch.float32, "second_order_momentum_accum_type": torch.float32}
_EVERY = {"loss_scaling": 1.0, "accum_type": torch.float32}
_CLIPPED = {"max_grad_norm": float("inf")}


class SGD(Optimizer, torch.optim.SGD):
    """Stochastic gradient descent; `lr` is required. Update rule: `ipu_model.runtime.device.rules._sgd`."""

    velocity_scaling: float
    use_combined_accum: bool

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: Optional[float] = None,
        dampening: Optional[float] = None,
        weight_decay: Optional[float] = None,
        nesterov: Optional[bool] = None,
        maximize: Optional[bool] = None,
        foreach: Optional[bool] = None,
        differentiable: Optional[bool] = None,
        loss_scaling: Optional[float] = None,
        velocity_scaling: Optional[float] = None,
        use_combined_accum: Optional[bool] = None,
        accum_type: Optional[torch.dtype] = None,
        velocity_accum_type: Optional[torch.dtype] = None,
        max_grad_norm: Optional[float] = None,
    ) -> None:
        hyper: Dict[str, Any] = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        torch.optim.SGD.__init__(self, params, **_present(**hyper, maximize=maximize, foreach=foreach, differentiable=differentiable))
        extra: Dict[str, Any] = dict(
            loss_scaling=loss_scaling,
            velocity_scaling=velocity_scaling,
            use_combined_accum=use_combined_accum,
            accum_type=accum_type,
            velocity_accum_type=velocity_accum_type,
            max_grad_norm=max_grad_norm,
        )
        self._keep(
            {**hyper, **extra},
            {**_EVERY, **_CLIPPED, "velocity_scaling": 1.0, "use_combined_accum": False, "velocity_accum_type": torch.float32},
        )
        if self.use_combined_accum:
            self.defaults["velocity_scaling"] = self.velocity_scaling
            for group in self.param_groups:
                group.setdefault("velocity_scaling", self.velocity_scaling)
        elif velocity_scaling is not None:
            logger.warning("velocity_scaling is ignored: it has a meaning with use_combined_accum=True only")


class Adam(Optimizer, torch.optim.Adam):
    """Adam with weight decay in the gradient. Update rule: `ipu_model.runtime.device.rules._adam`."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        betas: Optional[Betas] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        amsgrad: Optional[bool] = None,
        foreach: Optional[bool] = None,
        maximize: Optional[bool] = None,
        capturable: Optional[bool] = None,
        differentiable: Optional[bool] = None,
        fused: Optional[bool] = None,
        loss_scaling: Optional[float] = None,
        accum_type: Optional[torch.dtype] = None,
        first_order_momentum_accum_type: Optional[torch.dtype] = None,
        second_order_momentum_accum_type: Optional[torch.dtype] = None,
        max_grad_norm: Optional[float] = None,
    ) -> None:
        hyper: Dict[str, Any] = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        torch.optim.Adam.__init__(
            self,
            params,
            **_present(**hyper, foreach=foreach, maximize=maximize, capturable=capturable, differentiable=differentiable, fused=fused),
        )
        extra: Dict[str, Any] = dict(
            loss_scaling=loss_scaling,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
            max_grad_norm=max_grad_norm,
        )
        self._keep({**hyper, **extra}, {**_EVERY, **_MOMENT_TYPES, **_CLIPPED})


class AdamW(Optimizer, torch.optim.AdamW):
    """Adam with decoupled weight decay; the device corrects the bias always. Update rule: `ipu_model.runtime.device.rules._adamw`."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        betas: Optional[Betas] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        amsgrad: Optional[bool] = None,
        maximize: Optional[bool] = None,
        foreach: Optional[bool] = None,
        capturable: Optional[bool] = None,
        differentiable: Optional[bool] = None,
        fused: Optional[bool] = None,
        loss_scaling: Optional[float] = None,
        bias_correction: Optional[bool] = None,
        accum_type: Optional[torch.dtype] = None,
        first_order_momentum_accum_type: Optional[torch.dtype] = None,
        second_order_momentum_accum_type: Optional[torch.dtype] = None,
        max_grad_norm: Optional[float] = None,
    ) -> None:
        hyper: Dict[str, Any] = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        torch.optim.AdamW.__init__(
            self,
            params,
            **_present(**hyper, maximize=maximize, foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused),
        )
        extra: Dict[str, Any] = dict(
            loss_scaling=loss_scaling,
            bias_correction=bias_correction,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
            max_grad_norm=max_grad_norm,
        )
        self._keep({**hyper, **extra}, {**_EVERY, **_MOMENT_TYPES, **_CLIPPED, "bias_correction": True})


class RMSprop(Optimizer, torch.optim.RMSprop):
    """RMSprop, or with `use_tf_variant` TensorFlow's. Update rule: `ipu_model.runtime.device.rules._rmsprop`."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        alpha: Optional[float] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        momentum: Optional[float] = None,
        centered: Optional[bool] = None,
        foreach: Optional[bool] = None,
        maximize: Optional[bool] = None,
        differentiable: Optional[bool] = None,
        loss_scaling: Optional[float] = None,
        accum_type: Optional[torch.dtype] = None,
        first_order_momentum_accum_type: Optional[torch.dtype] = None,
        second_order_momentum_accum_type: Optional[torch.dtype] = None,
        use_tf_variant: Optional[bool] = None,
    ) -> None:
        hyper: Dict[str, Any] = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered)
        torch.optim.RMSprop.__init__(self, params, **_present(**hyper, foreach=foreach, maximize=maximize, differentiable=differentiable))
        extra: Dict[str, Any] = dict(
            loss_scaling=loss_scaling,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
            use_tf_variant=use_tf_variant,
        )
        self._keep({**hyper, **extra}, {**_EVERY, **_MOMENT_TYPES, "use_tf_variant": False})


_LAMB_DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2, "max_weight_norm": 65500.0}


class LAMB(Optimizer, torch.optim.Optimizer):
    """Layer-wise adaptive moments. Update rule: `ipu_model.runtime.device.rules._lamb`."""

    bias_correction: bool

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        betas: Optional[Betas] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        bias_correction: Optional[bool] = None,
        loss_scaling: Optional[float] = None,
        max_weight_norm: Optional[float] = None,
        accum_type: Optional[torch.dtype] = None,
        first_order_momentum_accum_type: Optional[torch.dtype] = None,
        second_order_momentum_accum_type: Optional[torch.dtype] = None,
    ) -> None:
        hyper: Dict[str, Any] = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_weight_norm=max_weight_norm)
        torch.optim.Optimizer.__init__(self, params, {**_LAMB_DEFAULTS, **_present(**hyper)})
        extra: Dict[str, Any] = dict(
            bias_correction=bias_correction,
            loss_scaling=loss_scaling,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
        )
        self._keep({**hyper, **extra}, {**_EVERY, **_MOMENT_TYPES, "bias_correction": True})
        self._host_state = OptimizerState()

    def _with_gradients(self) -> List[Tuple[str, int, torch.nn.Parameter]]:
        """Parameters that have gradients: a name, the number of the group, and the parameter."""
        numbered = [(f"{g}.{i}", g, p) for g, group in enumerate(self.param_groups) for i, p in enumerate(group["params"])]
        return [(name, group, parameter) for name, group, parameter in numbered if parameter.grad is not None]

    def step(self, closure: Any = None) -> Any:
        """Update on the host, by the device's rule."""
        pairs = self._with_gradients()
        rule = Rule("lamb", self.param_groups, {name: g for name, g, _ in pairs}, flags={"bias_correction": self.bias_correction})
        gradients = [p.grad for _, _, p in pairs if p.grad is not None]
        names, weights = [name for name, _, _ in pairs], [p.data for _, _, p in pairs]
        with torch.no_grad():
            complete_state(rule, names, weights, self._host_state)
            apply_update(rule, names, weights, gradients, self._host_state)
