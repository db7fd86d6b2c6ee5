"""`poptorch.Options`: how the device runs a model."""

from __future__ import annotations

import copy
import json
import os
from typing import Any, Dict, List, Optional

import torch

from . import enums
from ._forward.annotations import Attribute as Attribute
from ._options.files import ConfigFileError as ConfigFileError, apply_file, apply_json
from ._options.groups import (
    TensorLocationSettings as TensorLocationSettings,
    _DistributedOptions,
    _JitOptions,
    _PopartOptions,
    _PrecisionOptions,
    _TensorLocationOptions,
    _TrainingOptions,
    logger,
)
from ._options.store import OptionStore
from ._placement.blocks import PipelinedExecution, _IExecutionStrategy


class Options(OptionStore):
    """Everything a model needs to know about its device; every setter returns the object it was called on."""

    def __init__(self) -> None:
        super().__init__(
            replication_factor=1,
            device_iterations=1,
            output_mode=int(enums.OutputMode.Default),
            output_return_period=1,
            connection_type=int(enums.ConnectionType.Always),
            sync_pattern=int(enums.SyncPattern.Full),
            available_memory_proportion={},
            auto_round_num_ipus=False,
            log_dir=".",
            broadcast_buffers=True,
            input_group_size=1,
            input_cgt=int(enums.CommGroupType.Consecutive),
            anchored_tensors={},
            max_repeat_logs=4,
            _execution_strategy=PipelinedExecution(),
            _show_compilation_progress_bar=True,
            _relax_optimizer_checks=False,
            _module_namescope_enabled=True,
            _source_location_excludes=[],
        )
        popart = _PopartOptions()
        groups: Dict[str, OptionStore] = {
            "_Popart": popart,
            "Training": _TrainingOptions(popart),
            "Precision": _PrecisionOptions(popart),
            "TensorLocations": _TensorLocationOptions(),
            "Distributed": _DistributedOptions(),
            "Jit": _JitOptions(),
        }
        for name, group in groups.items():
            object.__setattr__(self, name, group)
        self._apply_environment()

    def _apply_environment(self) -> None:
        if os.environ.get("POPTORCH_CACHE_DIR"):
            self.enableExecutableCaching(os.environ["POPTORCH_CACHE_DIR"])
        if os.environ.get("POPTORCH_DEFAULT_OPTIONS"):
            self.from_json(os.environ["POPTORCH_DEFAULT_OPTIONS"])

    # ---- the call: iterations, replicas, outputs

    def deviceIterations(self, device_iterations: int) -> Options:
        """Times the device loop runs in one call."""
        return self._set_positive("device_iterations", device_iterations)

    def replicationFactor(self, replication_factor: int) -> Options:
        """Data-parallel copies of the model in this process."""
        return self._set_positive("replication_factor", replication_factor)

    def _set_positive(self, key: str, value: int) -> Options:
        assert isinstance(value, int) and value >= 1, f"{key} takes an integer of at least 1, got {value!r}"
        self.set(**{key: value})
        return self

    def outputMode(self, output_mode: enums.OutputMode, output_return_period: Optional[int] = None) -> Options:
        """Which outputs come back; EveryN needs a positive period."""
        assert isinstance(output_mode, enums.OutputMode), f"outputMode takes an OutputMode, got {output_mode!r}"
        if output_mode == enums.OutputMode.EveryN:
            is_valid = isinstance(output_return_period, int) and output_return_period >= 1
            assert is_valid, f"OutputMode.EveryN needs a positive output_return_period, got {output_return_period!r}"
        elif output_return_period is not None:
            logger.info("output_return_period is ignored: it has a meaning for OutputMode.EveryN only")
            output_return_period = 1
        self.set(output_mode=int(output_mode), output_return_period=output_return_period or 1)
        return self

    def defaultOutputMode(self) -> bool:
        """Whether no output mode has been chosen."""
        return self.output_mode == enums.OutputMode.Default

    def inputReplicaGrouping(self, input_group_size: int, input_cgt: enums.CommGroupType) -> Options:
        """Replicas of a group get the same input."""
        if input_cgt == enums.CommGroupType.All:
            raise ValueError("inputReplicaGrouping takes Consecutive, Orthogonal or NoGrouping, got All")
        if input_cgt == enums.CommGroupType.NoGrouping:
            input_group_size, input_cgt = 1, enums.CommGroupType.Consecutive
        if input_group_size > self.replication_factor or self.replication_factor % input_group_size:
            raise ValueError(
                f"inputReplicaGrouping: the group size {input_group_size} must divide replicationFactor "
                f"{self.replication_factor}; set the replication factor first"
            )
        self.set(input_group_size=input_group_size, input_cgt=int(input_cgt))
        return self

    def broadcastBuffers(self, broadcast_buffers: bool = True) -> Options:
        """Whether replicas share their buffers."""
        self.set(broadcast_buffers=broadcast_buffers)
        return self

    def randomSeed(self, random_seed: int) -> Options:
        """Seed the device's random numbers, and torch's on the host at once."""
        assert isinstance(random_seed, int), f"randomSeed takes an int, got {random_seed!r}"
        self.createOrSet(random_seed=random_seed)
        torch.manual_seed(random_seed)
        return self

    # ---- the device: placement, memory, connection

    def setExecutionStrategy(self, strategy: _IExecutionStrategy) -> Options:
        """How blocks become stages."""
        assert isinstance(strategy, _IExecutionStrategy), f"expected an execution strategy, got {strategy!r}"
        self.checkIsFrozen()
        self._values["_execution_strategy"] = strategy
        return self

    def setAvailableMemoryProportion(self, proportions: Dict[str, float]) -> Options:
        """Share of each IPU's memory for the temporaries of convolutions, as {"IPU0": 0.2, ...}."""
        for name in proportions:
            assert name.startswith("IPU"), f"setAvailableMemoryProportion takes keys such as 'IPU0', got {name!r}"
        self.set(available_memory_proportion={int(name[3:]): share for name, share in proportions.items()})
        return self

    def autoRoundNumIPUs(self, auto_round_num_ipus: bool = True) -> Options:
        """Round the number of IPUs up to a power of two."""
        self.set(auto_round_num_ipus=auto_round_num_ipus)
        return self

    def connectionType(self, connection_type: enums.ConnectionType) -> Options:
        """When to attach to the device."""
        assert isinstance(connection_type, enums.ConnectionType), f"expected a ConnectionType, got {connection_type!r}"
        self.set(connection_type=int(connection_type))
        return self

    def useOfflineIpuTarget(self, ipu_version: int = 2) -> Options:
        """Compile for an IPU that is not there; calling the model then raises."""
        assert ipu_version in (1, 2, 21), f"useOfflineIpuTarget takes version 1, 2 or 21, got {ipu_version!r}"
        self.createOrSet(ipu_version=ipu_version)
        return self.connectionType(enums.ConnectionType.Never)

    def useIpuModel(self, use_model: bool) -> Options:
        """Ask for a model of an IPU instead of hardware."""
        self.createOrSet(use_model=use_model)
        return self

    def useIpuId(self, ipu_id: int) -> Options:
        """Ask for one IPU by number."""
        assert isinstance(ipu_id, int), f"useIpuId takes an int, got {ipu_id!r}"
        self.createOrSet(ipu_id=ipu_id)
        return self

    def syncPattern(self, sync_pattern: enums.SyncPattern) -> Options:
        """Which IPUs synchronise together."""
        assert isinstance(sync_pattern, enums.SyncPattern), f"syncPattern takes a SyncPattern, got {sync_pattern!r}"
        self.set(sync_pattern=int(sync_pattern))
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
        wanted = {"debug.allowOutOfMemory": "true", "autoReport.directory": profile_dir or ".", "autoReport.all": "true"}
        present = json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS", "{}"))
        for key in sorted(set(wanted) & set(present)):
            logger.warning("POPLAR_ENGINE_OPTIONS sets %s too; enableProfiling overrides it", key)
        self._Popart.setEngineOptions({**self._Popart.options.get("engineOptions", {}), **wanted})
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
        self.set(_show_compilation_progress_bar=show)
        return self

    def maxRepeatLogs(self, max_lines: Optional[int]) -> Options:
        """How often a repeated log line is shown; None for always."""
        self.set(max_repeat_logs=2**64 - 1 if max_lines is None else max_lines)
        return self

    def relaxOptimizerAttributesChecks(self, relax: bool = True) -> Options:
        """Turn warnings about unexpected optimizer attributes into debug messages."""
        self.set(_relax_optimizer_checks=relax)
        return self

    def disableModuleNamescope(self) -> Options:
        """Do not name operations after modules."""
        self.set(_module_namescope_enabled=False)
        return self

    def sourceLocationExcludes(self, excludes: List[str]) -> Options:
        """Source files to leave out of locations in messages."""
        self.set(_source_location_excludes=list(excludes))
        return self

    def appendToLocationExcludes(self, *excludes: str) -> Options:
        """Further source files to leave out of locations in messages."""
        self.set(_source_location_excludes=[*self._source_location_excludes, *excludes])
        return self

    # ---- whole

    def clone(self) -> Options:
        """An independent, unfrozen copy."""
        return copy.deepcopy(self)

    def toDict(self) -> Dict[str, Any]:
        """All values of all groups in one dict; an output mode must have been chosen."""
        assert not self.defaultOutputMode(), "choose an output mode before toDict()"
        merged: Dict[str, Any] = {}
        for source in (self._Popart, super(), self.Training, self.Distributed, self.TensorLocations):
            merged.update(source.toDict())
        return merged

    def __deepcopy__(self, memo: Dict[int, Any]) -> Options:
        return super().__deepcopy__(memo)  # type: ignore[return-value]

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
        self.checkIsFrozen()
        mode = None if output_mode is None else int(output_mode)
        self.anchored_tensors[short_name] = (long_name, mode, output_return_period)
        return self

    def updatableNamedBuffers(self, buffers: List[str]) -> Options:
        """Buffers that `PoplarExecutor.copyNamedBuffersToDevice` uploads."""
        self._Popart.set("updatableNamedBuffers", list(buffers))
        return self
