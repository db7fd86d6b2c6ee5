"""The best pipeline splits of a config on its machine."""

from __future__ import annotations

from typing import Tuple

from config import AUTOMATIC_SPLITS, Config, ConfigError, with_fields
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.splits import best_cuts, with_splits, with_units
from ipu_model.program.ops import Program

from .tracing import Traced, trace_training


def are_automatic(config: Config) -> bool:
    """Whether the splits of a config are still to be found."""
    return config.ipu.pipeline_splits == AUTOMATIC_SPLITS


def with_best_splits(config: Config) -> Config:
    """The config with the best splits of its training model in the place of `auto`; ConfigError where none fits."""
    return with_fields(config, pipeline_splits=split(trace_training(config), config)[1]) if are_automatic(config) else config


def split(traced: Traced, config: Config) -> Tuple[Program, Tuple[str, ...]]:
    """The program cut into `automatic_stages` for the config's machine, and the paths at which its stages begin.

    Raises:
        ConfigError: no way to cut it fits.
    """
    units = with_units(traced.program, [f"{traced.prefix}{path}" for path in traced.cuts])
    stages, machine = config.ipu.automatic_stages, config.ipu.machine
    cuts = best_cuts(units, stages, traced.settings, MACHINES[machine])
    if cuts is None:
        raise ConfigError(
            f"no way to cut the model into {stages} stages fits the memory of {machine}: use more stages (--automatic-stages), a "
            "smaller micro batch, or --recomputation"
        )
    return with_splits(units, cuts), tuple(traced.cuts[cut - 1] for cut in cuts)
