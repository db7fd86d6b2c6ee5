"""From a wrapped model to the cost model: its program, and what its options say that changes the cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import torch

from ipu_model.cost.estimate import Estimate, estimate_program
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.page import report_page
from ipu_model.cost.settings import Settings
from ipu_model.program.ops import Program

from ..device.layout import Layout, split
from ..structures import flatten
from .programs import trace_program

# Values kept for each weight, and elementwise passes of an update (runtime/device/rules.py's rules, one pass for each operation).
_OPTIMIZERS = {"SGD": (0, 2), "Adam": (2, 9), "AdamW": (2, 10), "LAMB": (2, 13), "RMSprop": (1, 6)}


def program_of(executor: Any, *args: Any, **kwargs: Any) -> Program:
    """Records of a wrapped model for inputs of combined-batch shape."""
    layout: Layout = executor._layout
    leaves, structure = flatten((args, kwargs))
    first = [split(leaf, layout)[0] if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    strategy = executor._options._execution_strategy

    def place(starts: Any) -> Any:
        return [block.ipu for block in strategy.place(starts).blocks]

    return trace_program(executor._model, structure.unflatten(first), executor._training, place)


def settings_of(executor: Any) -> Settings:
    """What an executor's options and optimizer say."""
    options = executor._options
    popart = options._Popart.options
    training = options.Training
    optimizer = getattr(executor, "_optimizer", None)
    states, passes = _optimizer_cost(optimizer)
    location = options.TensorLocations.location_optimizer if options.TensorLocations.exists("location_optimizer") else {}
    proportions = options.available_memory_proportion
    return Settings(
        gradient_accumulation=training.gradient_accumulation,
        replication_factor=options.replication_factor,
        device_iterations=options.device_iterations,
        schedule="grouped" if options._execution_strategy.has_pipeline else "sequential",
        is_recomputed=bool(popart.get("autoRecomputation")),
        partials=popart.get("partialsTypeMatMuls", "float"),
        available_memory_proportion=min(proportions.values()) if proportions else Settings.available_memory_proportion,
        optimizer_states=states,
        optimizer_passes=passes,
        accumulator_bytes=2 if getattr(optimizer, "accum_type", torch.float32) == torch.float16 else 4,
        is_optimizer_off_chip=not location.get("onChip", 1),
        is_optimizer_sharded=bool(location.get("useReplicatedTensorSharding")),
        io_tiles=options.TensorLocations("numIOTiles") if options.TensorLocations.exists("numIOTiles") else 0,
    )


def _optimizer_cost(optimizer: Any) -> Any:
    if optimizer is None:
        return 0, 0
    kinds = [base.__name__ for base in type(optimizer).__mro__ if base.__name__ in _OPTIMIZERS]
    states, passes = _OPTIMIZERS[kinds[0]]
    has_momentum = any(group.get("momentum") for group in optimizer.param_groups)
    return states + has_momentum, passes + 2 * has_momentum


def estimate(executor: Any, *args: Any, machine: str = "pod16", schedule: Optional[str] = None, **kwargs: Any) -> Estimate:
    """What a wrapped model would cost on a machine, for inputs of combined-batch shape.

    Raises:
        ValueError: an unknown machine or schedule.
    """
    if machine not in MACHINES:
        raise ValueError(f"unknown machine {machine!r}: expected one of {', '.join(MACHINES)}")
    settings = settings_of(executor)
    return estimate_program(
        program_of(executor, *args, **kwargs), replace(settings, schedule=schedule or settings.schedule), MACHINES[machine]
    )


def write_report(executor: Any, folder: Path, args: Any, kwargs: Any, machine: str = "pod16") -> None:
    """Write `report.html` and `estimate.json` of a wrapped model into a folder."""
    program = program_of(executor, *args, **kwargs)
    result = estimate_program(program, settings_of(executor), MACHINES[machine])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(report_page(folder.name, program, result), encoding="utf-8")
    (folder / "estimate.json").write_text(json.dumps(result.as_json(), indent=2), encoding="utf-8")
