"""PopTorch's optimizers: torch's, with the attributes that the device needs. The device applies its own update rules
(`ipu_model.runtime.device.rules`); the host objects carry hyper-parameters, and work with torch's schedulers.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Tuple

import torch

_ACCUMULATION_TYPES = (torch.float16, torch.float32)


class VariableAttributes:
    """Which attributes may change after compilation."""

    def __init__(self, variable: Iterable[str], constant: Iterable[str]) -> None:
        self._variable = set(variable)
        self._known = self._variable | set(constant)

    def _check(self, name: str) -> None:
        assert name in self._known, f"Unknown attribute {name!r}; known: {sorted(self._known)}"

    def isConstant(self, name: str) -> bool:
        """Whether the attribute is fixed at compile time."""
        self._check(name)
        return name not in self._variable

    def markAsConstant(self, name: str) -> None:
        """Fix the attribute at compile time."""
        self._check(name)
        self._variable.discard(name)

    def markAsVariable(self, name: str) -> None:
        """Let the attribute change."""
        self._check(name)
        self._variable.add(name)


class Optimizer:
    """What every PopTorch optimizer has beside torch's."""

    loss_scaling: float
    velocity_scaling: float
    use_combined_accum: bool
    bias_correction: bool
    variable_attrs: VariableAttributes
    _executor: Any = None  # the executor that trains with this optimizer, once attached
    _loaded: Optional[Dict[str, Any]] = None  # device state that waits for the upload

    def _keep(self, given: Dict[str, Any], defaults: Dict[str, Any]) -> None:
        """Set extra attributes; those given are variable, others take the default and are constant."""
        for name, default in defaults.items():
            value = default if given.get(name) is None else given[name]
            if name.endswith("accum_type"):
                assert value in _ACCUMULATION_TYPES, f"{name} must be torch.float16 or torch.float32, got {value!r}"
            setattr(self, name, value)
        self.variable_attrs = VariableAttributes(
            [name for name, value in given.items() if value is not None],
            [name for name, value in given.items() if value is None],
        )

    def state_dict(self) -> Dict[str, Any]:
        """torch's state dict with the device's state under `ipu_state` and `ipu_param` (None before attachment)."""
        host = super().state_dict()  # type: ignore[misc]
        return {**host, **self._device_state()}

    def __getstate__(self) -> Dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_executor", "_loaded") and "hook" not in name}
        return {key: value for key, value in state.items() if not callable(value)}

    def _device_state(self) -> Dict[str, Any]:
        from ._executor.optimizer_link import device_state

        if self._executor is not None:
            return device_state(self._executor)
        return self._loaded or {"ipu_state": None, "ipu_param": None}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load the host's part now; the device's part is uploaded before the next run."""
        if "ipu_state" not in state_dict or "ipu_param" not in state_dict:
            raise RuntimeError(
                "Only IPU optimizer states can be loaded: the state dict must come from a poptorch.optim optimizer and have "
                f"'ipu_state' and 'ipu_param'; it has {sorted(state_dict)}"
            )
        device = {key: state_dict[key] for key in ("ipu_state", "ipu_param")}
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in device})  # type: ignore[misc]
        self._loaded = device if device["ipu_state"] is not None else None
        if self._executor is not None:
            self._executor.setOptimizer(self)


def _present(**values: Any) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class SGD(Optimizer, torch.optim.SGD):
    """Stochastic gradient descent; `lr` is required. Update rule: `ipu_model.runtime.device.rules._sgd`."""

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
        hyper = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        torch.optim.SGD.__init__(self, params, **_present(**hyper, maximize=maximize, foreach=foreach, differentiable=differentiable))
        extra = dict(
            loss_scaling=loss_scaling,
            velocity_scaling=velocity_scaling,
            use_combined_accum=use_combined_accum,
            accum_type=accum_type,
            velocity_accum_type=velocity_accum_type,
            max_grad_norm=max_grad_norm,
        )
        self._keep(
            {**hyper, **extra},
            dict(
                loss_scaling=1.0,
                velocity_scaling=1.0,
                use_combined_accum=False,
                accum_type=torch.float32,
                velocity_accum_type=torch.float32,
                max_grad_norm=float("inf"),
            ),
        )
        if self.use_combined_accum:
            for group in self.param_groups:
                group.setdefault("velocity_scaling", self.velocity_scaling)


class _AdamBase(Optimizer):
    """The extra attributes that Adam and AdamW share."""

    def _keep_moments(self, hyper: Dict[str, Any], extra: Dict[str, Any]) -> None:
        self._keep(
            {**hyper, **extra},
            dict(
                loss_scaling=1.0,
                bias_correction=True,
                accum_type=torch.float32,
                first_order_momentum_accum_type=torch.float32,
                second_order_momentum_accum_type=torch.float32,
                max_grad_norm=float("inf"),
            ),
        )


class Adam(_AdamBase, torch.optim.Adam):
    """Adam with weight decay in the gradient."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        betas: Optional[Tuple[float, float]] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        amsgrad: Optional[bool] = None,
        **extra: Any,
    ) -> None:
        hyper = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        torch.optim.Adam.__init__(self, params, **_present(**hyper, **_host_only(extra)))
        self._keep_moments(hyper, _device_only(extra, "Adam", _ADAM_EXTRAS))


class AdamW(_AdamBase, torch.optim.AdamW):
    """Adam with decoupled weight decay."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Optional[float] = None,
        betas: Optional[Tuple[float, float]] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        amsgrad: Optional[bool] = None,
        **extra: Any,
    ) -> None:
        hyper = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        torch.optim.AdamW.__init__(self, params, **_present(**hyper, **_host_only(extra)))
        self._keep_moments(hyper, _device_only(extra, "AdamW", (*_ADAM_EXTRAS, "bias_correction")))


_HOST_EXTRAS = ("foreach", "maximize", "capturable", "differentiable", "fused")
_ADAM_EXTRAS = (
    "loss_scaling",
    "accum_type",
    "first_order_momentum_accum_type",
    "second_order_momentum_accum_type",
    "max_grad_norm",
)


def _host_only(extra: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in extra.items() if name in _HOST_EXTRAS}


def _device_only(extra: Dict[str, Any], kind: str, known: Tuple[str, ...]) -> Dict[str, Any]:
    for name in extra:
        if name not in _HOST_EXTRAS and name not in known:
            raise TypeError(f"{kind} got an unexpected argument {name!r}; known: {sorted((*known, *_HOST_EXTRAS))}")
    return {name: extra.get(name) for name in known}


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
        hyper = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered)
        torch.optim.RMSprop.__init__(self, params, **_present(**hyper, maximize=maximize, foreach=foreach, differentiable=differentiable))
        extra = dict(
            loss_scaling=loss_scaling,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
            use_tf_variant=use_tf_variant,
        )
        self._keep(
            {**hyper, **extra},
            dict(
                loss_scaling=1.0,
                accum_type=torch.float32,
                first_order_momentum_accum_type=torch.float32,
                second_order_momentum_accum_type=torch.float32,
                use_tf_variant=False,
            ),
        )


class LAMB(Optimizer, torch.optim.Optimizer):
    """Layer-wise adaptive moments. Update rule: `ipu_model.runtime.device.rules._lamb`."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        bias_correction: bool = True,
        loss_scaling: float = 1.0,
        max_weight_norm: float = 65500.0,
        accum_type: torch.dtype = torch.float32,
        first_order_momentum_accum_type: torch.dtype = torch.float32,
        second_order_momentum_accum_type: torch.dtype = torch.float32,
    ) -> None:
        hyper = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_weight_norm=max_weight_norm)
        torch.optim.Optimizer.__init__(self, params, hyper)
        extra = dict(
            loss_scaling=loss_scaling,
            bias_correction=bias_correction,
            accum_type=accum_type,
            first_order_momentum_accum_type=first_order_momentum_accum_type,
            second_order_momentum_accum_type=second_order_momentum_accum_type,
        )
        self._keep({**hyper, **extra}, extra)

    def step(self, closure: Any = None) -> Any:
        """Update on the host, by the device's rule."""
        from ipu_model.runtime.device.rules import OptimizerState, Rule, apply_update, complete_state

        if not hasattr(self, "_host_state"):
            self._host_state = OptimizerState()
        pairs: List[Tuple[str, int, torch.nn.Parameter]] = [
            (f"{g}.{i}", g, p) for g, group in enumerate(self.param_groups) for i, p in enumerate(group["params"]) if p.grad is not None
        ]
        rule = Rule("lamb", self.param_groups, {name: g for name, g, _ in pairs}, flags={"bias_correction": self.bias_correction})
        gradients = [p.grad for _, _, p in pairs if p.grad is not None]
        names, weights = [name for name, _, _ in pairs], [p.data for _, _, p in pairs]
        with torch.no_grad():
            complete_state(rule, names, weights, self._host_state)
            apply_update(rule, names, weights, gradients, self._host_state)
