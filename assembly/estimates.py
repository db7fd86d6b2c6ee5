"""What a config costs on its machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

from config import Config
from ipu_model.cost.estimate import Estimate, estimate_program
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.splits import largest_micro_batch
from ipu_model.program.ops import Program

from .splits import are_automatic, split
from .tracing import trace_training, trace_validation


@dataclass(frozen=True)
class FoundSplits:
    """Splits that were found, and the largest micro batch that fits with them."""

    splits: Tuple[str, ...]
    largest_micro_batch: int


@dataclass(frozen=True)
class Case:
    """A config's program and what it costs; `found` where its splits were `auto`."""

    name: str
    program: Program
    estimate: Estimate
    found: Optional[FoundSplits] = None


def estimate_config(config: Config, schedule: Optional[str] = None, is_inference: bool = False) -> Case:
    """Estimate a config's training model (or validation model) under a pipeline schedule, None: that of its options.

    Raises:
        ConfigError: its splits are `auto`, and none fits.
    """
    traced = trace_validation(config) if is_inference else trace_training(config)
    program, machine = traced.program, MACHINES[config.ipu.machine]
    settings = replace(traced.settings, schedule=schedule or traced.settings.schedule)
    if not are_automatic(config):
        return Case(config.preset, program, estimate_program(program, settings, machine))
    program, splits = split(replace(traced, settings=settings), config)
    settings = replace(settings, schedule=schedule or "grouped")
    found = FoundSplits(splits, largest_micro_batch(program, settings, machine))
    return Case(config.preset, program, estimate_program(program, settings, machine), found)
