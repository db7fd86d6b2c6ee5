"""`poptorch.Options`: how the device runs a model."""

from __future__ import annotations

import copy
import os
from typing import Any, Dict, List, Optional

import torch

from . import enums
from ._forward.annotations import Attribute as Attribute
from ._options import checks
from ._options.files import ConfigFileError as ConfigFileError, apply_file, apply_json
from ._options.groups import (
    TensorLocationSettings as TensorLocationSettings,
    _DistributedOptions,
    _JitOptions,
    _PopartOptions,
    _PrecisionOptions,
    _TensorLocationOptions,
    _TrainingOptions,
)
from ._options.store import OptionStore
from ._placement.blocks import ExecutionStrategy, PipelinedExecution


def _default_values() -> Dict[str, Any]:
    return {
        "replication_factor": 1,
        "device_iterations": 1,
        "output_mode": int(enums.OutputMode.Default),
        "output_return_period": 1,
        "connection_type": int(enums.ConnectionType.Always),
        "sync_pattern": int(enums.SyncPattern.Full),
        "available_memory_proportion": {},
        "auto_round_num_ipus": False,
        "log_dir": ".",
        "broadcast_buffers": True,
        "input_group_size": 1,
        "input_cgt": int(enums.CommGroupType.Consecutive),
        "anchored_tensors": {},
        "max_repeat_logs": 4,
    }


def _default_groups(distributed: _DistributedOptions) -> Dict[str, OptionStore]:
    popart = _PopartOptions()
    return {
        "Training": _TrainingOptions(popart),
        "Precision": _PrecisionOptions(popart),
        "TensorLocations": _TensorLocationOptions(),
        "Distributed": distributed,
        "Jit": _JitOptions(),
        "_Popart": popart,
    }


class Options(OptionStore):
    """Everything a model needs to know about its device; every setter returns the object it was called on."""

    former_names = {
        "anchorMode": "outputMode",
        "defaultAnchorMode": "defaultOutputMode",
        "anchor_mode": "output_mode",
        "anchor_return_period": "output_return_period",
        "_popart": "_Popart",
    }

    distributed_options = _DistributedOptions  # popdist has its own

    def __init__(self) -> None:
        switches = {
            "_execution_strategy": PipelinedExecution(),
            "_show_compilation_progress_bar": True,
            "_relax_optimizer_checks": False,
            "_module_namescope_enabled": True,
            "_source_location_excludes": [],
        }
        super().__init__(_default_values(), _default_groups(self.distributed_options()), switches)
        self._apply_environment()

    def _apply_environment(self) -> None:
        if os.environ.get("POPTORCH_CACHE_DIR"):
            self.enableExecutableCaching(os.environ["POPTORCH_CACHE_DIR"])
        if os.environ.get("POPTORCH_DEFAULT_OPTIONS"):
            self.from_json(os.environ["POPTORCH_DEFAULT_OPTIONS"])

    # ---- the call: iterations, replicas, outputs

    def deviceIterations(self, device_iterations: int) -> Options:
        """Times the device loop runs in one call."""
        self.set(device_iterations=checks.positive("deviceIterations", device_iterations))
        return self

    def replicationFactor(self, replication_factor: int) -> Options:
        """Data-parallel copies of the model in this process."""
        self.set(replication_factor=checks.positive("replicationFactor", replication_factor))
        return self

    def outputMode(self, output_mode: enums.OutputMode, output_return_period: Optional[int] = None) -> Options:
        """Which outputs come back; EveryN needs a positive period."""
        self.set(**checks.output_values(output_mode, output_return_period))
        return self

    def defaultOutputMode(self) -> bool:
        """Whether no output mode has been chosen."""
        return self.output_mode == enums.OutputMode.Default

    def inputReplicaGrouping(self, input_group_size: int, input_cgt: enums.CommGroupType) -> Options:
        """Replicas of a group get the same input."""
        self.set(**checks.grouping_values(input_group_size, input_cgt, self.replication_factor))
        return self

    def broadcastBuffers(self, broadcast_buffers: bool = True) -> Options:
        """Whether replicas share their buffers."""
        self.set(broadcast_buffers=broadcast_buffers)
        return self

    def randomSeed(self, random_seed: int) -> Options:
        """Seed the device's random numbers, and torch's on the host at once."""
        self.createOrSet(random_seed=checks.expect("randomSeed", int, random_seed))
        torch.manual_seed(random_seed)
        return self

    # ---- the device: placement, memory, connection

    def setExecutionStrategy(self, strategy: ExecutionStrategy) -> Options:
        """How blocks become stages."""
        self._execution_strategy = checks.expect("setExecutionStrategy", ExecutionStrategy, strategy)
        return self

    def setAvailableMemoryProportion(self, proportions: Dict[str, float]) -> Options:
        """Share of each IPU's memory for the temporaries of convolutions, as {"IPU0": 0.2, ...}."""
        self.set(available_memory_proportion=checks.memory_proportions(proportions))
        return self

    def autoRoundNumIPUs(self, auto_round_num_ipus: bool = True) -> Options:
        """Round the number of IPUs up to a power of two."""
        self.set(auto_round_num_ipus=auto_round_num_ipus)
        return self

    def connectionType(self, connection_type: enums.ConnectionType) -> Options:
        """When to attach to the device."""
        self.set(connection_type=int(checks.expect("connectionType", enums.ConnectionType, connection_type)))
        return self

    def useOfflineIpuTarget(self, ipu_version: int = 2) -> Options:
        """Compile for an IPU that is not there; calling the model then raises."""
        self.createOrSet(ipu_version=checks.ipu_version(ipu_version))
        return self.connectionType(enums.ConnectionType.Never)

    def useIpuModel(self, use_model: bool) -> Options:
        """Ask for a model of an IPU instead of hardware."""
        self.createOrSet(use_model=use_model)
        return self

    def useIpuId(self, ipu_id: int) -> Options:
        """Ask for one IPU by number."""
        self.createOrSet(ipu_id=checks.expect("useIpuId", int, ipu_id))
        return self

    def syncPattern(self, sync_pattern: enums.SyncPattern) -> Options:
        """Which IPUs synchronise together."""
        self.set(sync_pattern=int(checks.expect("syncPattern", enums.SyncPattern, sync_pattern)))
        return self

    def enableStableNorm(self, enabled: bool) -> Options:
        """Two-pass statistics in norms (always so here)."""
        self._Popart.set("enableStableNorm", bool(enabled))
        return self

    def enableSyntheticData(self, enabled: int) -> Options:
        """Run without host I/O."""
        self._Popart.set("syntheticDataMode", 2 if enabled else 0)
        return self

    # ---- files, logs, profiles

    def enableExecutableCaching(self, path: Optional[str]) -> Options:
        """Keep compiled programs in a folder; None switches off."""
        self._Popart.set("enableEngineCaching", path is not None)
        self._Popart.set("cachePath", path)
        return self

    def enableProfiling(self, profile_dir: Optional[str] = None) -> Options:
        """Ask the engine for a report."""
        self._Popart.setEngineOptions(checks.profiling_options(profile_dir, self._Popart.options.get("engineOptions", {})))
        return self

    def modelName(self, name: str) -> Options:
        """Name of the model in reports."""
        self.createOrSet(model_name=name)
        return self

    def logDir(self, log_dir: str) -> Options:
        """Folder of log files."""
        self.set(log_dir=log_dir)
        return self

    def logCycleCount(self, log_cycle_count: bool) -> Options:
        """Count cycles on hardware."""
        self._Popart.set("instrumentWithHardwareCycleCounter", log_cycle_count)
        return self

    def showCompilationProgressBar(self, show: bool = True) -> Options:
        """Whether compiling shows a bar."""
        self._show_compilation_progress_bar = show
        return self

    def maxRepeatLogs(self, max_lines: Optional[int]) -> Options:
        """How often a repeated log line is shown; None for always."""
        self.set(max_repeat_logs=checks.UNLIMITED if max_lines is None else max_lines)
        return self

    def relaxOptimizerAttributesChecks(self, relax: bool = True) -> Options:
        """Turn warnings about unexpected optimizer attributes into debug messages."""
        self._relax_optimizer_checks = relax
        return self

    def disableModuleNamescope(self) -> Options:
        """Do not name operations after modules."""
        self._module_namescope_enabled = False
        return self

    def sourceLocationExcludes(self, excludes: List[str]) -> Options:
        """Source files to leave out of locations in messages."""
        self._source_location_excludes = list(excludes)
        return self

    def appendToLocationExcludes(self, *excludes: str) -> Options:
        """Further source files to leave out of locations in messages."""
        self._source_location_excludes = [*self._source_location_excludes, *excludes]
        return self

    # ---- whole

    def clone(self) -> Options:
        """An independent, unfrozen copy."""
        return copy.deepcopy(self)

    def toDict(self) -> Dict[str, Any]:
        """All values of all groups in one dict, the execution strategy by number; an output mode must have been chosen."""
        assert not self.defaultOutputMode(), "choose an output mode before toDict()"
        merged: Dict[str, Any] = {}
        for source in (self._Popart, super(), self.Training, self.Distributed, self.TensorLocations):
            merged.update(source.toDict())
        return {**self._execution_strategy.backendOptions(), **merged}

    def from_json(self, string: str) -> Options:
        """Apply a JSON object: dotted setter names to arguments; "EnumName.Member" becomes the enum member."""
        apply_json(self, string)
        return self

    def loadFromFile(self, path: str) -> Options:
        """Apply a file of setter calls, one a line, written without the leading `options.`."""
        apply_file(self, path)
        return self

    # ---- tensors by name

    def anchorTensor(
        self, short_name: str, long_name: str, output_mode: Optional[enums.OutputMode] = None, output_return_period: int = 1
    ) -> Options:
        """Keep a tensor of every run for `PoplarExecutor.getAnchoredTensor(short_name)`; None is the model's own output mode."""
        kept = checks.anchor(output_mode, output_return_period, long_name)
        self.set(anchored_tensors={**self.anchored_tensors, short_name: kept})
        return self

    def updatableNamedBuffers(self, buffers: List[str]) -> Options:
        """Buffers that `PoplarExecutor.copyNamedBuffersToDevice` uploads."""
        self._Popart.set("updatableNamedBuffers", list(buffers))
        return self
