"""Weight updates, as the device computes them: rules that change a weight and its state in place.

g is the reduced gradient without loss scale. State is kept by parameter name in the type that the optimizer asks for. A rule says what
its update costs beside its steps, so that the cost model follows from what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Sequence

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

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
        accumulator_dtype: in which the gradients of micro batches are summed.
        num_slices: for a parameter of which groups of replicas have their own, how many there are along dimension 0; each slice is a
            parameter to the rule.
    """

    kind: str
    groups: Sequence[Mapping[str, Any]]
    group_of: Mapping[str, int]
    state_dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    max_grad_norm: float = float("inf")
    is_stochastic: bool = False
    accumulator_dtype: torch.dtype = torch.float32
    num_slices: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateCost:
    """What a weight of a parameter group costs.

    Attributes:
        state_bytes: of the state tensors that are as large as the weights, for each weight.
        passes: operations over all weights of an update.
        sums_in_state: the gradients' sum is a state tensor itself (the combined accumulator), so that no other one is needed.
    """

    state_bytes: int = 0
    passes: int = 0
    sums_in_state: bool = False


def update_cost(rule: Rule, group: int) -> UpdateCost:
    """What follows from the rule's own code: its state is made and its step run, on tensors without data."""
    weight, gradient = torch.empty(2, 3, device="meta"), torch.empty(2, 3, device="meta")
    options, kind = rule.groups[group], _KINDS[rule.kind]
    state = kind.initial(weight, options, rule.flags)
    stored = [rule.state_dtypes.get(key, torch.float32) for key, value in state.items() if value.shape == weight.shape]
    with torch.no_grad(), _PassCounter(weight.shape) as counter:
        kind.step(weight, gradient, state, options, rule.flags)
    is_clipped = max(rule.max_grad_norm, 0.0) != float("inf")
    return UpdateCost(
        state_bytes=sum(torch.empty((), dtype=dtype).element_size() for dtype in stored),
        passes=counter.passes + 2 * is_clipped,  # the norm, and the product
        sums_in_state="Accl" in state,
    )


class _PassCounter(TorchDispatchMode):
    """Counts the operations that read or write tensors of one shape."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self._shape = shape
        self.passes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        touched = pytree.tree_flatten((args, kwargs, result))[0]
        self.passes += any(isinstance(value, torch.Tensor) and value.shape == self._shape for value in touched)
        return result


def complete_state(rule: Rule, names: Sequence[str], weights: Sequence[torch.Tensor], state: OptimizerState) -> None:
    """Make what a rule keeps for its weights and is not there yet."""
    for name, weight in zip(names, weights):
        initial = _initial_state(rule, name, weight)
        stored = {key: value.to(rule.state_dtypes.get(key, torch.float32)) for key, value in initial.items()}
        state.by_parameter[name] = {**stored, **state.by_parameter.get(name, {})}


def _initial_state(rule: Rule, name: str, weight: torch.Tensor) -> State:
    group, initial = rule.groups[rule.group_of[name]], _KINDS[rule.kind].initial
    if name not in rule.num_slices:
        return initial(weight, group, rule.flags)
    slices = [initial(part, group, rule.flags) for part in weight]
    return {key: torch.stack([state[key] for state in slices]) for key in slices[0]}


def apply_update(
    rule: Rule, names: Sequence[str], weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], state: OptimizerState
) -> None:
    """Update weights and state, which is complete, in place; float32 arithmetic, each value stored in its own type."""
    if max(rule.max_grad_norm, 0.0) != float("inf"):
        gradients = _clip_to_global_norm(gradients, rule.max_grad_norm)
    step = _KINDS[rule.kind].step
    for name, weight, gradient in zip(names, weights, gradients):
        group = rule.groups[rule.group_of[name]]
        stored = state.by_parameter[name]
        wide = {key: value if value.dtype == torch.float32 else value.to(torch.float32) for key, value in stored.items()}
        wide_weight = weight if weight.dtype == torch.float32 else weight.to(torch.float32)
        if name in rule.num_slices:
            for index in range(rule.num_slices[name]):
                step(wide_weight[index], gradient[index], {key: value[index] for key, value in wide.items()}, group, rule.flags)
        else:
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


def _zeros(weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(weight, dtype=torch.float32)


def _has_velocity(group: Mapping[str, Any], flags: Mapping[str, Any]) -> bool:
    """A momentum that is 0 now, and may change later, has a velocity too."""
    return bool(group["momentum"]) or flags.get("is_momentum_variable", False)


def _sgd_state(weight: torch.Tensor, group: Mapping[str, Any], flags: Mapping[str, Any]) -> State:
    """The combined accumulator `Accl` holds velocity_scaling * v, `Accl1` holds v."""
    if not _has_velocity(group, flags):
        return {}
    return {"Accl" if flags.get("use_combined_accum", False) else "Accl1": _zeros(weight)}


def _sgd(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """v <- m v + (1 - d) g from the first step on; w <- w - lr v (Nesterov: w <- w - lr (g + m v))."""
    momentum, dampening = group["momentum"], group["dampening"]
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    fresh = gradient * (1 - dampening) if dampening else gradient
    if not _has_velocity(group, flags):
        weight.add_(fresh, alpha=-group["lr"])
        return
    is_combined = flags.get("use_combined_accum", False)
    key, scaling = ("Accl", group["velocity_scaling"]) if is_combined else ("Accl1", 1.0)
    state[key].mul_(momentum).add_(fresh, alpha=scaling)
    if group["nesterov"]:
        weight.add_(gradient, alpha=-group["lr"])
    weight.add_(state[key], alpha=-group["lr"] * (momentum if group["nesterov"] else 1.0) / scaling)


def _moments_state(weight: torch.Tensor, group: Mapping[str, Any], flags: Mapping[str, Any]) -> State:
    """First and second moment, and the number of steps that the bias correction needs."""
    return {"Accl1": _zeros(weight), "Accl2": _zeros(weight), "Step": torch.zeros((), device=weight.device)}


def _moments(gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> List[torch.Tensor]:
    """Bias-corrected first and second moment."""
    beta1, beta2 = group["betas"]
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


def _rmsprop_state(weight: torch.Tensor, group: Mapping[str, Any], flags: Mapping[str, Any]) -> State:
    """The mean square, which TensorFlow's variant begins at 1; the mean where centered; the velocity with momentum."""
    state = {"Accl1": torch.ones_like(_zeros(weight)) if flags.get("use_tf_variant", False) else _zeros(weight)}
    if group["centered"]:
        state["Accl2"] = _zeros(weight)
    if group["momentum"]:
        state["Accl3"] = _zeros(weight)
    return state


def _rmsprop(weight: torch.Tensor, gradient: torch.Tensor, state: State, group: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """s <- alpha s + (1 - alpha) g^2; w <- w - lr g / (sqrt(s) + eps).

    TensorFlow's variant: s starts at 1, eps is inside the root, and the learning rate is folded into the velocity.
    """
    is_tf = flags.get("use_tf_variant", False)
    alpha, eps, momentum = group["alpha"], group["eps"], group["momentum"]
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    variance = state["Accl1"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
    if group["centered"]:
        mean = state["Accl2"].mul_(alpha).add_(gradient, alpha=1 - alpha)
        variance = variance.addcmul(mean, mean, value=-1)
    direction = gradient / (variance + eps).sqrt_() if is_tf else gradient / variance.sqrt().add_(eps)
    if not momentum:
        weight.add_(direction, alpha=-group["lr"])
        return
    velocity = state["Accl3"].mul_(momentum).add_(direction, alpha=group["lr"] if is_tf else 1.0)
    weight.add_(velocity, alpha=-1.0 if is_tf else -group["lr"])


@dataclass(frozen=True)
class _Kind:
    """What a rule keeps for a weight, and its step, which changes the weight and that state."""

    initial: Callable[[torch.Tensor, Mapping[str, Any], Mapping[str, Any]], State]
    step: Callable[[torch.Tensor, torch.Tensor, State, Mapping[str, Any], Mapping[str, Any]], None]


_KINDS: Dict[str, _Kind] = {
    "sgd": _Kind(_sgd_state, _sgd),
    "adam": _Kind(_moments_state, _adam),
    "adamw": _Kind(_moments_state, _adamw),
    "lamb": _Kind(_moments_state, _lamb),
    "rmsprop": _Kind(_rmsprop_state, _rmsprop),
}
