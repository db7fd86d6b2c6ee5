"""Data layout of a call: how inputs split into micro batches, and which outputs come back.

D device iterations, G accumulation steps, R replicas: a call takes D * G * R micro batches along dimension 0, iterations outermost,
replicas innermost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Sequence

import torch

FINAL, EVERY_N, ALL, SUM = 0, 1, 2, 3  # poptorch.OutputMode


@dataclass(frozen=True)
class Layout:
    """Sizes of one call."""

    device_iterations: int
    gradient_accumulation: int
    replication_factor: int
    input_group_size: int = 1
    is_orthogonal: bool = False

    @property
    def num_input_groups(self) -> int:
        """Replica groups that get inputs of their own."""
        return self.replication_factor // self.input_group_size

    @property
    def num_chunks(self) -> int:
        """Micro batches in the inputs of a call."""
        return self.device_iterations * self.gradient_accumulation * self.num_input_groups

    def micro_batch_size(self, batch_size: int) -> int:
        """Samples that `forward` sees of a batch; AssertionError when the batch does not divide."""
        assert batch_size % self.num_chunks == 0, (
            f"Input batch size {batch_size} must be divisible by deviceIterations {self.device_iterations} x gradientAccumulation "
            f"{self.gradient_accumulation} x replicationFactor {self.replication_factor}"
            + (f" / input group size {self.input_group_size}" if self.input_group_size > 1 else "")
            + f" = {self.num_chunks}"
        )
        return batch_size // self.num_chunks

    def input_chunk(self, iteration: int, step: int, replica: int) -> int:
        """Number of the micro batch that a replica gets."""
        group = replica % self.num_input_groups if self.is_orthogonal else replica // self.input_group_size
        return (iteration * self.gradient_accumulation + step) * self.num_input_groups + group

    def output_chunk(self, iteration: int, step: int, replica: int) -> int:
        """Position of a micro batch's output among all."""
        return (iteration * self.gradient_accumulation + step) * self.replication_factor + replica


def split(tensor: torch.Tensor, layout: Layout) -> List[torch.Tensor]:
    """The micro batches of an input, as views. A 0-dimensional tensor counts as a batch of one."""
    if tensor.dim() == 0:
        assert layout.num_chunks == 1, (
            f"A 0-dimensional input needs deviceIterations x gradientAccumulation x replicationFactor = 1, it is {layout.num_chunks}"
        )
        return [tensor]
    layout.micro_batch_size(tensor.shape[0])
    return list(tensor.chunk(layout.num_chunks))


def synthetic_like(value: Any) -> Any:
    """What synthetic data puts in an input's place: normal numbers, any bytes, and zeros for wider integers, which may be indices."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.uint8:
        return torch.randint_like(value, 256)
    return torch.randn_like(value) if value.is_floating_point() else torch.zeros_like(value)


class OutputCollector:
    """Keeps what the output mode returns of each micro batch's outputs, and joins it at the end of the call."""

    def __init__(self, layout: Layout, mode: int, period: int) -> None:
        self._layout = layout
        self._mode = mode
        self._period = period
        self._kept: dict = {}

    def add(self, iteration: int, step: int, replica: int, outputs: Sequence[torch.Tensor]) -> bool:
        """Take the outputs of one micro batch; returns whether a returned chunk is complete with it."""
        layout = self._layout
        is_last = iteration == layout.device_iterations - 1 and step == layout.gradient_accumulation - 1
        if self._mode == SUM:
            present = self._kept.get(replica)
            self._kept[replica] = list(outputs) if present is None else [a + b for a, b in zip(present, outputs)]
            return is_last
        is_returned = is_last if self._mode == FINAL else self._mode == ALL or (iteration + 1) % self._period == 0
        if is_returned:
            self._kept[layout.output_chunk(iteration, step, replica)] = list(outputs)
        return is_returned

    def join(self) -> List[torch.Tensor]:
        """Each output concatenated along dimension 0; 0-dimensional ones stacked when there are several."""
        chunks = [self._kept[key] for key in sorted(self._kept)]
        return [_join(list(tensors)) for tensors in zip(*chunks)]


def _join(tensors: List[torch.Tensor]) -> torch.Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return torch.stack(tensors) if tensors[0].dim() == 0 else torch.cat(tensors)
