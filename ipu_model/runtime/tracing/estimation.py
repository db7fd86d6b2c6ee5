"""From a wrapped model to the cost model: its program, and what its settings and its update rule say that changes the cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

import torch

from ipu_model.cost.estimate import Estimate, estimate_program
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.page import report_page
from ipu_model.cost.settings import DEFAULT_MEMORY_PROPORTION, OptimizerCost, Settings
from ipu_model.program.ops import Program

from ..device.rules import Rule, UpdateCost, update_cost
from .programs import trace_program
from .workload import Workload, workload_of


def program_of(workload: Workload) -> Program:
    """Records of one micro batch."""
    return trace_program(workload.model, workload.inputs, workload.is_training, lambda starts: workload.place(starts).stages)


def settings_of(workload: Workload) -> Settings:
    """What the cost model reads of settings and rule."""
    said, layout, cost = workload.settings, workload.settings.layout, _dearest_group(workload.rule)
    return Settings(
        gradient_accumulation=layout.gradient_accumulation,
        replication_factor=layout.replication_factor,
        device_iterations=layout.device_iterations,
        schedule="grouped" if said.is_pipelined else "sequential",
        is_recomputed=said.is_recomputed,
        partials=said.partials,
        memory_proportions=_by_ipu(said.available_memory_proportions),
        optimizer=OptimizerCost(
            state_bytes=cost.state_bytes,
            gradient_bytes=2 if workload.rule is not None and workload.rule.accumulator_dtype == torch.float16 else 4,
            is_sum_in_state=cost.sums_in_state,
            passes=cost.passes,
        ),
        is_optimizer_off_chip=not said.location("optimizer").is_on_chip,
        is_optimizer_sharded=said.location("optimizer").is_sharded,
        io_tiles=said.num_io_tiles or 0,
    )


def _by_ipu(proportions: Mapping[int, float]) -> Tuple[float, ...]:
    """Available memory proportions in the order of the IPUs, with PopLibs' default where none was chosen."""
    return tuple(proportions.get(ipu, DEFAULT_MEMORY_PROPORTION) for ipu in range(max(proportions, default=-1) + 1))


def _dearest_group(rule: Optional[Rule]) -> UpdateCost:
    """Of the parameter groups, which differ by whether they decay or have momentum, the one that costs most."""
    costs = [] if rule is None else [update_cost(rule, index) for index in sorted(set(rule.group_of.values()))]
    return max(costs, key=lambda cost: (cost.state_bytes, cost.passes), default=UpdateCost())


def estimate(executor: object, *args: Any, machine: str = "pod16", schedule: Optional[str] = None, **kwargs: Any) -> Estimate:
    """What a wrapped model would cost on a machine, for inputs of combined-batch shape.

    Raises:
        ValueError: an unknown machine or schedule.
        TypeError: a model that another poptorch has wrapped.
    """
    if machine not in MACHINES:
        raise ValueError(f"unknown machine {machine!r}: expected one of {', '.join(MACHINES)}")
    workload = workload_of(executor, args, kwargs)
    settings = settings_of(workload)
    return estimate_program(program_of(workload), replace(settings, schedule=schedule or settings.schedule), MACHINES[machine])


def write_report(workload: Workload, folder: Path, machine: str = "pod16") -> None:
    """Write `report.html` and `estimate.json` of a wrapped model into a folder."""
    program = program_of(workload)
    result = estimate_program(program, settings_of(workload), MACHINES[machine])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(report_page(folder.name, program, result), encoding="utf-8")
    (folder / "estimate.json").write_text(json.dumps(result.as_json(), indent=2), encoding="utf-8")
