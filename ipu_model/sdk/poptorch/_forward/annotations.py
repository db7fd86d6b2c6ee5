"""Functions and scopes that tell the device how to compute, without effect on values."""

from __future__ import annotations

import logging
from typing import Any, List, Optional, Union

import torch

from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward.printing import Printed
from ipu_model.runtime.forward.recording import current_recording
from ipu_model.runtime.structures import map_leaves

from ..enums import MatMulSerializationMode, MultiConvPlanType, OverlapMode

logger = logging.getLogger("poptorch::python")


def recomputationCheckpoint(*tensors: Any) -> Any:
    """Keep these tensors for the backward pass where the rest is recomputed: values are unchanged; the cost model chooses itself.

    One tensor gives a tensor, several a tuple, one list or tuple the same type.
    """
    values = tensors[0] if len(tensors) == 1 else tensors
    if isinstance(values, torch.fx.Proxy):  # symbolic tracing: a node of this name
        return values.tracer.create_proxy("call_function", recomputationCheckpoint, (values,), {})
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"recomputationCheckpoint takes tensors, got {value!r}")
    return values


def _need_tensor(name: str, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise Error(f"poptorch.{name} takes a tensor, got {value!r}.")


def nop(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    _need_tensor("nop", tensor)
    return tensor


def set_available_memory(tensor: torch.Tensor, available_memory_proportion: float) -> torch.Tensor:
    """The tensor itself; the share of memory for the operation that made it is a hint without effect on values."""
    _need_tensor("set_available_memory", tensor)
    return tensor


def set_overlap_for_input(input_tensors: Any, mode: OverlapMode) -> Any:
    """The same structure; its tensors, inputs of forward, are loaded while the device computes. Checked at compilation."""
    return _annotate_overlap("set_overlap_for_input", "inputs", input_tensors, mode)


def set_overlap_for_output(output_tensors: Any, mode: OverlapMode) -> Any:
    """The same structure; its tensors, outputs of forward, are stored while the device computes. Checked at compilation."""
    return _annotate_overlap("set_overlap_for_output", "outputs", output_tensors, mode)


def _annotate_overlap(name: str, kind: str, tensors: Any, mode: OverlapMode) -> Any:
    if not isinstance(mode, OverlapMode):
        raise Error(f"poptorch.{name} takes a poptorch.OverlapMode, got {mode!r}.")

    def annotate(value: Any) -> Any:
        _need_tensor(name, value)
        record = current_recording()
        if record is None:
            return value
        with torch._C.DisableTorchFunction():  # not a use of the tensor
            alias = value.view_as(value)
        getattr(record.overlap, kind).append((value, alias, mode.value))
        return alias

    return map_leaves(annotate, tensors)


def serializedMatMul(
    lhs: torch.Tensor, rhs: torch.Tensor, mode: MatMulSerializationMode, factor: int = 0, keep_precision: bool = False
) -> torch.Tensor:
    """matmul; the device cuts it into `factor` parts to save memory."""
    assert isinstance(mode, MatMulSerializationMode), f"serializedMatMul takes a MatMulSerializationMode, got {mode!r}"
    assert isinstance(factor, int), f"serializedMatMul: factor must be an int, got {factor!r}"
    assert isinstance(keep_precision, bool), f"serializedMatMul: keep_precision must be a bool, got {keep_precision!r}"
    return torch.matmul(lhs, rhs)


def internal_cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast to half or float; ValueError for other types."""
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"internal_cast takes torch.half or torch.float, got {dtype!r}")
    return tensor.to(dtype)


def ipu_print_tensor(
    tensor: torch.Tensor,
    title: str = "",
    print_gradient: bool = True,
    summarise_threshold: int = 1000,
    edge_items: int = 3,
    max_line_width: int = 80,
    digits: int = 4,
    float_format: str = "auto",
    separator: str = ", ",
    open_bracket: str = "(",
    close_bracket: str = ")",
) -> torch.Tensor:
    """The tensor itself, printed to stderr every time the device computes it, and its gradient likewise."""
    _need_tensor("ipu_print_tensor", tensor)
    if float_format not in ("auto", "fixed", "scientific", "none"):
        raise Error(f"ipu_print_tensor: float_format must be auto, fixed, scientific or none, got {float_format!r}.")
    if current_recording() is None:
        return tensor
    settings = (summarise_threshold, edge_items, max_line_width, digits, float_format, separator, open_bracket, close_bracket)
    return Printed.apply(tensor, title, print_gradient, settings)  # type: ignore[return-value]


class NameScope:
    """Operations inside belong to a named part of the model."""

    def __init__(self, name: str) -> None:
        assert isinstance(name, str), f"NameScope takes a str, got {name!r}"
        self.name = name

    def __enter__(self) -> NameScope:
        record = current_recording()
        if record is not None:
            record.name_scopes.append(self.name)
        return self

    def __exit__(self, *exception: Any) -> None:
        record = current_recording()
        if record is not None and record.name_scopes:
            record.name_scopes.pop()


class Attribute:
    """Compiler attributes of the operations inside, such as `__outline={"layer": "embedding"}`: without effect on values."""

    def __init__(self, **attributes: Any) -> None:
        self.attributes = attributes

    def __enter__(self) -> Attribute:
        return self

    def __exit__(self, *exception: Any) -> None:
        pass


class MultiConv:
    """Convolutions inside are planned together. Values are those of single convolutions."""

    def availableMemoryProportions(self, value: Union[float, List[float]]) -> MultiConv:
        """Share of memory, one for all convolutions or one for each."""
        return self

    def partialsTypes(self, value: Union[torch.dtype, List[torch.dtype]]) -> MultiConv:
        """Type of partial sums: torch.float or torch.half."""
        if any(kind not in (torch.float32, torch.float16) for kind in _as_list(value)):
            raise ValueError(f"Invalid partials types: expected torch.float or torch.half, or a list of these, got {value!r}")
        return self

    def enableConvDithering(self, value: Union[bool, List[bool]]) -> MultiConv:
        """Whether to spread starting tiles."""
        if not all(isinstance(item, bool) for item in _as_list(value)):
            raise ValueError(f"enableConvDithering takes a bool or a list of bools, got {value!r}")
        return self

    def planType(self, value: MultiConvPlanType) -> MultiConv:
        """Side by side, or one after another."""
        assert isinstance(value, MultiConvPlanType), f"Invalid plan type: expected a MultiConvPlanType, got {value!r}"
        return self

    def perConvReservedTiles(self, value: int) -> MultiConv:
        """Tiles kept for each convolution."""
        assert isinstance(value, int), f"perConvReservedTiles takes an int, got {value!r}"
        return self

    def cycleBackOff(self, value: float) -> MultiConv:
        """How much slower than the fastest the plan may be."""
        assert isinstance(value, float), f"cycleBackOff takes a float, got {value!r}"
        return self

    def __enter__(self) -> MultiConv:
        record = current_recording()
        if record is not None:
            if record.multi_conv_size is not None:
                raise Error("Nested poptorch.MultiConv is not supported: leave the outer scope first.")
            record.multi_conv_size = 0
        return self

    def __exit__(self, kind: Optional[type], *exception: Any) -> None:
        record = current_recording()
        if record is None:
            return
        size, record.multi_conv_size = record.multi_conv_size, None
        if kind is None and not size:
            raise Error("Unexpected end_multi_conv: there is no convolution inside of poptorch.MultiConv.")


def _as_list(value: Any) -> List[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
