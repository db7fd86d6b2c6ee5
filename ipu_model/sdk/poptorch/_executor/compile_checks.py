"""What is refused when a model is compiled."""

from __future__ import annotations

import logging
from typing import Any, Sequence

import torch

from ipu_model.runtime.capture import Captured
from ipu_model.runtime.device.layout import ALL, SUM
from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.errors import Error, absent
from ipu_model.runtime.forward.recording import Recording

from .._options.popart_keys import check_key
from ..enums import OutputMode

logger = logging.getLogger("poptorch::python")
BatchNorm = torch.nn.modules.batchnorm._NormBase


def check_inputs(leaves: Sequence[Any]) -> None:
    """Warn of inputs that require gradients; `Error` for tensors without elements."""
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            continue
        if leaf.requires_grad:
            logger.warning("Input tensor has requires_grad=True set: no gradient flows to inputs, it is detached.")
        if leaf.numel() == 0:
            raise Error(f"Zero-sized tensors are unsupported: an input has shape {tuple(leaf.shape)}.")


def check_options(settings: RunSettings) -> None:
    """`Error` for options that a program without hardware cannot have, and for unknown PopART options."""
    if settings.counts_cycles:
        raise Error("Cycle count logging is only supported on actual IPU hardware: leave out Options.logCycleCount(True).")
    for key in settings.graph_options:
        check_key(key)


def warn_of_rounding(reserved: int, used: int) -> None:
    """Say that `Options.autoRoundNumIPUs` reserves more IPUs than the model uses."""
    if reserved != used:
        logger.warning("autoRoundNumIPUs: %d IPUs are reserved, the model uses %d of them.", reserved, used)


def check_captured(settings: RunSettings, model: torch.nn.Module, captured: Captured, record: Recording) -> None:
    """`Error` for what replicas would change differently, unknown updatable buffers, and misplaced overlap annotations."""
    if settings.layout.replication_factor > 1:
        _check_changes_of_replicas(settings, model, captured)
    if record.has_collectives and settings.num_processes > 1:
        raise absent("An operation between replicas over several instances", "one instance with all replicas")
    present = {name for name, _ in model.named_buffers()}
    for name in settings.updatable_buffers:
        if name not in present:
            raise Error(f"updatableNamedBuffers: the model has no buffer {name!r}; it has {', '.join(sorted(present)) or 'none'}.")
    if record.overlap.inputs or record.overlap.outputs:
        _check_overlap_options(settings, bool(record.overlap.outputs))


def _check_changes_of_replicas(settings: RunSettings, model: torch.nn.Module, captured: Captured) -> None:
    changed = (captured.written_buffers | captured.written_parameters) - _batch_norm_buffers(model)
    if changed and settings.broadcasts_buffers:
        raise Error(
            f"PopTorch does not support broadcasting buffers that forward changes when there are replicas ({', '.join(sorted(changed))}): "
            "set poptorch.Options.broadcastBuffers(False) to give each replica its own."
        )
    if captured.written_parameters:
        raise absent("A parameter that forward changes, with replicas", "a buffer in its place")


def _batch_norm_buffers(model: torch.nn.Module) -> set:
    parts = [(prefix, part) for prefix, part in model.named_modules() if isinstance(part, BatchNorm)]
    return {f"{prefix}.{name}" if prefix else name for prefix, part in parts for name, _ in part.named_buffers()}


def _check_overlap_options(settings: RunSettings, has_outputs: bool) -> None:
    if settings.is_pipelined:
        raise Error("Overlapped IO is not supported with PipelinedExecution: use poptorch.ShardedExecution.")
    if settings.num_io_tiles is None:
        raise Error("No IO tiles allocated. Set Options.TensorLocations.numIOTiles(n) to overlap host I/O with compute.")
    if has_outputs and settings.outputs.mode not in (ALL, SUM):
        name = OutputMode(settings.outputs.mode).name
        raise Error(f"poptorch.set_overlap_for_output cannot be used with OutputMode.{name}: choose OutputMode.All or OutputMode.Sum.")
