"""Python implementations of operators that programs have written in C++ for PopART."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import torch

from ..errors import Error
from .collectives import call_collective, is_collective
from .control_flow import as_list

Implementation = Callable[[Sequence[torch.Tensor], Mapping[str, Any]], Any]
_implementations: Dict[Tuple[str, str], Implementation] = {}


def register_custom_op(name: str, domain: str, implementation: Implementation) -> None:
    """Use `implementation(inputs, attributes)`, written in torch operations, where a program calls the custom operator `domain.name`.

    It returns a tensor or a list of tensors; gradients follow from torch's own, or from a torch.autograd.Function in it.
    """
    _implementations[(domain, name)] = implementation


def call_custom_op(
    name: str, domain: str, inputs: Sequence[torch.Tensor], examples: Sequence[torch.Tensor], attributes: Mapping[str, Any]
) -> List[torch.Tensor]:
    """Outputs of a registered implementation.

    Raises:
        NotImplementedError: none is registered.
        Error: outputs differ from the examples in number, type or shape.
    """
    implementation = _implementations.get((domain, name))
    if implementation is None and is_collective(name, domain):
        return call_collective(name, inputs, examples, attributes)
    if implementation is None:
        raise NotImplementedError(
            f"The custom operator {domain}.{name} is C++ code for IPUs, which the IPU Model cannot run. Write it in torch operations and "
            f"register it: ipu_model.register_custom_op({name!r}, {domain!r}, lambda inputs, attributes: ...)."
        )
    outputs = as_list(implementation(inputs, attributes))
    expected = [(tuple(example.shape), example.dtype) for example in examples]
    got = [(tuple(output.shape), output.dtype) for output in outputs]
    if expected != got:
        raise Error(f"custom_op {domain}.{name}: expected outputs (shape, type) {expected} as in example_outputs, got {got}.")
    return outputs
