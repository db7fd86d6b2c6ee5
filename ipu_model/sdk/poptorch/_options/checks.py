"""What setters of `Options` check, and the values that follow from their arguments."""

from __future__ import annotations

import json
import logging
import os
from typing import Any, Dict, Mapping, Optional, TypeVar

from .. import enums

logger = logging.getLogger("poptorch::python")
Value = TypeVar("Value")
UNLIMITED = 2**64 - 1


def expect(setter: str, kind: Any, value: Value) -> Value:
    """The value; AssertionError where it is of another type."""
    name = kind.__name__.replace("_I", "")
    assert isinstance(value, kind), f"{setter} takes {'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}, got {value!r}"
    return value


def positive(setter: str, value: int) -> int:
    """The value; AssertionError unless it is an integer of at least 1."""
    assert isinstance(value, int) and value >= 1, f"{setter} takes an integer of at least 1, got {value!r}"
    return value


def output_values(output_mode: enums.OutputMode, output_return_period: Optional[int]) -> Dict[str, int]:
    """Values of an output mode; EveryN needs a positive period, for others a period is ignored."""
    expect("outputMode", enums.OutputMode, output_mode)
    if output_mode == enums.OutputMode.EveryN:
        is_valid = isinstance(output_return_period, int) and output_return_period >= 1
        assert is_valid, f"OutputMode.EveryN needs a positive output_return_period, got {output_return_period!r}"
        return {"output_mode": int(output_mode), "output_return_period": int(output_return_period or 1)}
    if output_return_period is not None:
        logger.info("output_return_period is ignored: it has a meaning for OutputMode.EveryN only")
    return {"output_mode": int(output_mode), "output_return_period": 1}


def grouping_values(size: int, kind: enums.CommGroupType, replicas: int) -> Dict[str, int]:
    """Values of an input grouping; ValueError where the group does not divide the replicas."""
    if kind == enums.CommGroupType.All:
        raise ValueError("inputReplicaGrouping takes Consecutive, Orthogonal or NoGrouping, got All")
    if kind == enums.CommGroupType.NoGrouping:
        size, kind = 1, enums.CommGroupType.Consecutive
    if size > replicas or replicas % size:
        raise ValueError(
            f"inputReplicaGrouping: the group size {size} must divide replicationFactor {replicas}; set the replication factor first"
        )
    return {"input_group_size": size, "input_cgt": int(kind)}


def memory_proportions(proportions: Mapping[str, float]) -> Dict[int, float]:
    """Shares of memory by the number of the IPU."""
    for name in proportions:
        assert name.startswith("IPU"), f"setAvailableMemoryProportion takes keys such as 'IPU0', got {name!r}"
    return {int(name[3:]): share for name, share in proportions.items()}


def ipu_version(version: int) -> int:
    """The version; AssertionError where there is none such."""
    assert version in (1, 2, 21), f"useOfflineIpuTarget takes version 1, 2 or 21, got {version!r}"
    return version


def profiling_options(folder: Optional[str], present: Mapping[str, str]) -> Dict[str, str]:
    """Poplar's engine options with those of a report; a warning for those that the environment sets too."""
    wanted = {"debug.allowOutOfMemory": "true", "autoReport.directory": folder or ".", "autoReport.all": "true"}
    for key in sorted(set(wanted) & set(json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS", "{}")))):
        logger.warning("POPLAR_ENGINE_OPTIONS sets %s too; enableProfiling overrides it", key)
    return {**present, **wanted}


def anchor(output_mode: Optional[enums.OutputMode], period: int, long_name: str) -> Any:
    """What is kept of an anchor: the tensor's name, its mode (None: the model's own), its period."""
    return long_name, None if output_mode is None else int(output_mode), period
