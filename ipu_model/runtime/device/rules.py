"""Weight updates, as the device computes them: rules that change a weight and its state in place.

g is the reduced gradient without loss scale. State is kept by parameter name in the type that the optimizer asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Sequence

import torch

from ..rounding import store

State = Dict[str, torch.Tensor]


@dataclass
class OptimizerState:
    """Momenta and step counts, by parameter name and then by PopTorch's name of the state (`Accl1`, `Step`, ...)."""

    by_parameter: Dict[str, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """An optimizer as the device knows it.

    Attributes:
        kind: "sgd", "adam", "adamw", "rmsprop" or "lamb".
        groups: hyper-parameters of each parameter group.
        group_of: group number by parameter name.
        state_dtypes: storage type by state name; float32 where absent.
        flags: attributes fixed at compile time (`use_tf_variant`, `bias_correction`, ...).
        max_grad_norm: the gradients of all parameters together are clipped to this norm.
        is_stochastic: whether values stored in half are rounded stochastically.
    """

    kind: str
    groups: Sequence[Mapping[str, Any]]
    group_of: Mapping[str, int]
    state_dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    max_grad_norm: float = float("inf")
    is_stochastic: bool = False


def apply_update(
    rule: Rule, names: Sequence[str], weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], state: OptimizerState
) -> None:
    """Update weights and state in place; float32 arithmetic, each value stored in its own type."""
    if max(rule.max_grad_norm, 0.0) != float("inf"):
        gradients = _clip_to_global_norm(gradients, rule.max_grad_norm)
    step = _RULES[rule.kind]
    for name, weight, gradient in zip(names, weights, gradients):
        group = rule.groups[rule.group_of[name]]
        stored = state.by_parameter.setdefault(name, {})
        wide = {key: value if value.dtype == torch.float32 else value.to(torch.float32) for key, value in stored.items()}
        wide_weight = weight if weight.dtype == torch.float32 else weight.to(torch.float32)
        step(wide_weight, gradient, wide, group, rule.flags)
        for key, value in wide.items():
            dtype = rule.state_dtypes.get(key, torch.float32)
            stored[key] = value if dtype == torch.float32 else store(value, dtype, rule.is_stochastic)
        if wide_weight is not weight:
            weight.copy_(store(wide_weight, weight.dtype, rule.is_stochastic))


def _clip_to_global_norm(gradients: Sequence[torch.Tensor], max_norm: float) -> List[torch.Tensor]:
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)  # 1e-6: as torch.nn.utils.clip_grad_norm_
    return [gradient * factor for gradient in gradients]


def _sgd(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """v <- m v + (1 - d) g from the first step on; w <- w - lr v (Nesterov: w <- w - lr (g + m v)).

    With the combined accumulator the state is `Accl`, which holds velocity_scaling * v; else `Accl1`, which holds v.
    """
    momentum, dampening = group["momentum"], group["dampening"]
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    fresh = gradient * (1 - dampening) if dampening else gradient
    if not momentum:
        weight.add_(fresh, alpha=-group["lr"])
        return
    is_combined = flags.get("use_combined_accum", False)
    key, scaling = ("Accl", group["velocity_scaling"]) if is_combined else ("Accl1", 1.0)
    if key in state:
        state[key].mul_(momentum).add_(fresh, alpha=scaling)
    else:
        state[key] = fresh * scaling
    if group["nesterov"]:
        weight.add_(gradient, alpha=-group["lr"])
    weight.add_(state[key], alpha=-group["lr"] * (momentum if group["nesterov"] else 1.0) / scaling)


def _moments(gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> List[torch.Tensor]:
    """Bias-corrected first and second moment."""
    beta1, beta2 = group["betas"]
    if "Accl1" not in state:
        state.update(Accl1=torch.zeros_like(gradient), Accl2=torch.zeros_like(gradient))
        state["Step"] = torch.zeros((), device=gradient.device)
    state["Step"].add_(1)
    first = state["Accl1"].mul_(beta1).add_(gradient, alpha=1 - beta1)
    second = state["Accl2"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    if not flags.get("bias_correction", True):
        return [first, second]
    return [first / (1 - beta1 ** state["Step"]), second / (1 - beta2 ** state["Step"])]


def _adam(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """w <- w - lr m / (sqrt(v) + eps), weight decay added to the gradient."""
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    first, second = _moments(gradient, state, group, flags)
    weight.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-group["lr"])


def _adamw(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """As Adam, with the weight decayed apart from the gradient: w <- w (1 - lr wd) first."""
    first, second = _moments(gradient, state, group, flags)
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-group["lr"])


def _lamb(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """u = m / (sqrt(v) + eps) + wd w; w <- w - lr trust u, trust = min(|w|, max_weight_norm) / |u|, 1 where either is 0."""
    first, second = _moments(gradient, state, group, flags)
    direction = first / (second.sqrt() + group["eps"]) + group["weight_decay"] * weight
    weight_norm = weight.norm().clamp(max=group["max_weight_norm"])
    direction_norm = direction.norm()
    ratio = weight_norm / direction_norm
    trust = torch.where((weight_norm > 0) & (direction_norm > 0), ratio, torch.ones_like(ratio))
    weight.sub_(group["lr"] * trust * direction)


def _rmsprop(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """s <- alpha s + (1 - alpha) g^2; w <- w - lr g / (sqrt(s) + eps).

    TensorFlow's variant: s starts at 1, eps is inside the root, and the learning rate is folded into the velocity.
    """
    is_tf = flags.get("use_tf_variant", False)
    alpha, eps, momentum = group["alpha"], group["eps"], group["momentum"]
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    if "Accl1" not in state:
        state["Accl1"] = torch.ones_like(gradient) if is_tf else torch.zeros_like(gradient)
    variance = state["Accl1"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
    if group["centered"]:
        mean = state.get("Accl2", torch.zeros_like(gradient)).mul_(alpha).add_(gradient, alpha=1 - alpha)
        state["Accl2"] = mean
        variance = variance.addcmul(mean, mean, value=-1)
    direction = gradient / (variance + eps).sqrt_() if is_tf else gradient / variance.sqrt().add_(eps)
    if not momentum:
        weight.add_(direction, alpha=-group["lr"])
        return
    velocity = state.get("Accl3", torch.zeros_like(gradient)).mul_(momentum)
    state["Accl3"] = velocity.add_(direction, alpha=group["lr"] if is_tf else 1.0)
    weight.add_(velocity, alpha=-1.0 if is_tf else -group["lr"])


_RULES: Dict[str, Callable[..., None]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "lamb": _lamb,
    "rmsprop": _rmsprop,
}
