"""Loops and branches on the device, code on the host in the middle of forward, and custom operators."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward.control_flow import OPERATORS, as_list, capture_host_call, capture_region
from ipu_model.runtime.forward.custom_ops import call_custom_op
from ipu_model.runtime.forward.recording import HostFunction, current_recording, on_host


def _check_inputs(name: str, inputs: Any) -> None:
    if not isinstance(inputs, list):
        raise ValueError(f"Object is not list: poptorch.{name} takes its inputs as a list of tensors, got {type(inputs).__name__}")
    for index, value in enumerate(inputs):
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"Object contained in list at index {index} is not torch.tensor: poptorch.{name} got {type(value).__name__}")


def _need_inference(name: str) -> None:
    record = current_recording()
    if record is not None and record.is_training:
        raise Error(f"poptorch.{name}() is only supported in inference: a training model needs a Python loop or torch.where.")


def for_loop(count: int, body: Callable[..., Any], inputs: List[torch.Tensor]) -> List[torch.Tensor]:
    """Run `body` a number of times, its results the arguments of the next time; returns the last results as a list.

    The body is captured once. Arguments are copies. Only in inference.
    """
    _check_inputs("for_loop", inputs)
    _need_inference("for_loop")
    if current_recording() is not None:
        return capture_region(body, inputs, count)
    values = list(inputs)
    for _ in range(count):
        values = as_list(body(*[value.clone() for value in values]))
    return values


def cond(
    condition: torch.Tensor,
    then_body: Callable[..., Any],
    then_inps: List[torch.Tensor],
    else_body: Callable[..., Any],
    else_inps: List[torch.Tensor],
) -> List[torch.Tensor]:
    """Results of one of two bodies, by a boolean tensor that is read on the device. Both are captured. Only in inference."""
    _check_inputs("cond", then_inps)
    _check_inputs("cond", else_inps)
    _need_inference("cond")
    if current_recording() is None:
        body, inputs = (then_body, then_inps) if bool(condition) else (else_body, else_inps)
        return as_list(body(*[value.clone() for value in inputs]))
    if_true, if_false = capture_region(then_body, then_inps), capture_region(else_body, else_inps)
    shapes = [[(tuple(value.shape), value.dtype) for value in values] for values in (if_true, if_false)]
    if shapes[0] != shapes[1]:
        raise Error(f"poptorch.cond: both branches must give equal numbers, shapes and types of tensors, got {shapes[0]} and {shapes[1]}.")
    return OPERATORS.choose(condition, if_true, if_false)


class CPU:
    """A function or module that runs on the host in the middle of forward, for every micro batch. Only in inference.

    Shapes of its results are fixed while compiling, from a run on zeros. `ID` names it in messages.
    """

    def __init__(self, layer_to_call: Callable[..., Any], ID: str) -> None:
        if not callable(layer_to_call):
            raise Error(f"poptorch.CPU takes a callable or a module, got {layer_to_call!r}.")
        self.layer_to_call, self.ID = layer_to_call, ID
        if isinstance(layer_to_call, torch.nn.Module):
            layer_to_call.requires_grad_(False)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The single result, or a list of them."""
        if current_recording() is None:
            return self.layer_to_call(*inputs)
        _need_inference(f"CPU({self.ID!r})")
        with _disable_current_modes(), torch._C.DisableTorchFunction(), on_host():
            dtypes = tuple(x.dtype for x in inputs)
            examples = as_list(self.layer_to_call(*[torch.zeros(tuple(x.shape), dtype=x.dtype) for x in inputs]))
        results = capture_host_call(HostFunction(self.layer_to_call, dtypes, tuple(examples)), inputs)
        return results[0] if len(results) == 1 else results


def custom_op(
    inputs: Sequence[torch.Tensor],
    name: str,
    domain: str,
    domain_version: int,
    example_outputs: Sequence[torch.Tensor],
    attributes: Optional[Dict[str, Any]] = None,
) -> List[torch.Tensor]:
    """Outputs of a custom operator, by the Python implementation registered with `ipu_model.register_custom_op`."""
    for key, value in (attributes or {}).items():
        for text in [key, *as_list(value)]:
            if isinstance(text, str) and not text.isascii():
                raise ValueError(f"custom_op {name}: attributes take ASCII text only, got {text!r}")
            if not isinstance(text, (int, float, str)):
                raise ValueError(f"custom_op {name}: attribute {key!r} must be int, float, str or a list of these, got {value!r}")
    return call_custom_op(name, domain, inputs, example_outputs, attributes or {})
