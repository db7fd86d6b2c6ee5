"""What is refused of a forward that has run."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List

import torch

from ..errors import Error
from .recording import Recording


@contextlib.contextmanager
def bindings_checked(model: torch.nn.Module, state: Dict[str, torch.Tensor]) -> Iterator[None]:
    """`Error` when forward removes a buffer or parameter, or binds another tensor to its name; BatchNorm may."""

    def check(module: torch.nn.Module, arguments: Any, result: Any) -> None:
        exempt = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, torch.nn.modules.batchnorm._NormBase))
        present = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
        for name, tensor in state.items():
            if name.startswith(exempt) if exempt else False:
                continue
            if name not in present:
                raise Error(f"Buffer {name} is removed in forward: keep it, and write new values into it with copy_().")
            if present[name] is not tensor:
                raise Error(f"Buffer {name} is reassigned in forward: write the new value into it with copy_() instead.")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def check_overlap(record: Recording, inputs: List[Any], outputs: List[Any]) -> None:
    """`Error` for overlap annotations of what is no input or output of the graph, or is used beside them."""
    overlap = record.overlap
    for given, _, _ in overlap.inputs:
        if id(given) in record.used_inputs:
            raise Error("poptorch.set_overlap_for_input must be the only use of an input: use the tensor that it returns everywhere.")
        if not any(given is leaf for leaf in inputs):
            raise Error("poptorch.set_overlap_for_input applied on a tensor that is not an input of forward: annotate the argument.")
    for _, returned, _ in overlap.outputs:
        uses = sum(returned is leaf for leaf in outputs)
        if uses == 0:
            raise Error("poptorch.set_overlap_for_output applied on a tensor that forward does not return: return the annotated tensor.")
        if uses > 1:
            raise Error("poptorch.set_overlap_for_output must be the only use of an output: the same tensor is returned twice.")
