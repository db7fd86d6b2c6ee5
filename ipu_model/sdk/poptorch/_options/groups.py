"""The nested groups of `poptorch.Options`: Training, Precision, TensorLocations, Distributed, Jit, _Popart."""

from __future__ import annotations

import logging
import os
from typing import Any, Dict, Mapping, Optional, Tuple

import torch

from .. import enums
from .former import Policy, warn_autocast
from .store import OptionStore

logger = logging.getLogger("poptorch::python")


class _PopartOptions(OptionStore):
    """Options of the graph compiler underneath, kept under their own names for the cost model."""

    def __init__(self) -> None:
        super().__init__(switches={"options": {"instrumentWithHardwareCycleCounter": False, "rearrangeAnchorsOnHost": False}})

    def set(self, key: str, value: Any) -> _PopartOptions:  # type: ignore[override]  # PopTorch's own signature
        """Keep a value under any name."""
        self.checkIsFrozen()
        self.options[key] = value
        return self

    def setEngineOptions(self, engine_options: Dict[str, str]) -> _PopartOptions:
        """Keep Poplar's engine options."""
        return self.set("engineOptions", engine_options)

    def setPatterns(self, patterns: Dict[str, bool], level: int = 2) -> _PopartOptions:
        """Keep the compiler patterns to switch on or off."""
        assert isinstance(patterns, dict), f"patterns must be a dict, got {patterns!r}"
        assert isinstance(level, int), f"level must be an int, got {level!r}"
        self.set("patterns", patterns)
        return self.set("patterns_level", level)

    def toDict(self) -> Dict[str, Any]:
        """The values."""
        return dict(self.options)

    def _shown(self) -> Mapping[str, Any]:
        return self.options


class _TrainingOptions(OptionStore):
    """How gradients accumulate and combine."""

    former_names = {"accumulationReductionType": "accumulationAndReplicationReductionType"}

    def __init__(self, popart: _PopartOptions) -> None:
        values = {
            "gradient_accumulation": 1,
            "accumulation_and_replication_reduction_type": enums.ReductionType.Mean,
            "meanAccumulationAndReplicationReductionStrategy": enums.MeanReductionStrategy.Post,
        }
        super().__init__(values, switches={"_popart": popart})

    def gradientAccumulation(self, gradient_accumulation: int) -> _TrainingOptions:
        """Micro batches per replica and weight update."""
        self.set(gradient_accumulation=gradient_accumulation)
        return self

    def accumulationAndReplicationReductionType(self, reduction_type: enums.ReductionType) -> _TrainingOptions:
        """Mean (default) or Sum over all micro batches of an update."""
        if reduction_type not in (enums.ReductionType.Mean, enums.ReductionType.Sum):
            raise ValueError(f"accumulationAndReplicationReductionType takes Mean or Sum, got {reduction_type!r}")
        self.set(accumulation_and_replication_reduction_type=reduction_type)
        return self

    def setMeanAccumulationAndReplicationReductionStrategy(self, strategy: enums.MeanReductionStrategy) -> _TrainingOptions:
        """When the mean divides."""
        self.set(meanAccumulationAndReplicationReductionStrategy=strategy)
        return self

    def setAutomaticLossScaling(self, enabled: bool) -> _TrainingOptions:
        """Let the device choose the loss scale from the size of the gradients."""
        self.checkIsFrozen()
        self._popart.set("automaticLossScalingSettings.enabled", bool(enabled))
        return self

    def setConvolutionDithering(self, enabled: bool) -> _TrainingOptions:
        """Spread convolutions that would all start on the same tiles (a layout hint: recorded)."""
        self.checkIsFrozen()
        settings = dict(self._popart.options.get("convolutionOptions", {}))
        self._popart.set("convolutionOptions", {**settings, "enableConvDithering": str(bool(enabled)).lower()})
        return self


class _PrecisionOptions(OptionStore):
    """Rounding and the type of partial sums."""

    def __init__(self, popart: _PopartOptions) -> None:
        super().__init__(switches={"_popart": popart})

    def enableStochasticRounding(self, enabled: bool) -> _PrecisionOptions:
        """Round to half up or down at random, in proportion to the distance."""
        self.checkIsFrozen()
        self._popart.set("enableStochasticRounding", bool(enabled))
        return self

    def setPartialsType(self, dtype: torch.dtype) -> _PrecisionOptions:
        """Type of partial sums in matrix products and convolutions (recorded: sums here are float32)."""
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(f"setPartialsType takes torch.float32 or torch.float16, got {dtype!r}")
        self.checkIsFrozen()
        name = "half" if dtype == torch.float16 else "float"
        settings = dict(self._popart.options.get("convolutionOptions", {}))
        self._popart.set("partialsTypeMatMuls", name)
        self._popart.set("convolutionOptions", {**settings, "partialsType": name})
        return self

    def enableFloatingPointExceptions(self, enabled: bool) -> _PrecisionOptions:
        """Raise at the call in which a result is not finite."""
        assert isinstance(enabled, bool), f"enableFloatingPointExceptions takes a bool, got {enabled!r}"
        self.checkIsFrozen()
        self._popart.set("enableFloatingPointChecks", enabled)
        return self

    def halfFloatCasting(self, behaviour: enums.HalfFloatCastingBehavior) -> _PrecisionOptions:
        """Deprecated and without effect."""
        logger.warning("Precision.halfFloatCasting is deprecated and has no effect; remove the call (got %r).", behaviour)
        return self

    def runningStatisticsAlwaysFloat(self, enabled: bool) -> _PrecisionOptions:
        """Deprecated and without effect."""
        if not isinstance(enabled, bool):
            raise ValueError(f"runningStatisticsAlwaysFloat takes a bool, got {enabled!r}")
        logger.warning("Precision.runningStatisticsAlwaysFloat is deprecated and has no effect; remove the call.")
        return self

    def autocastEnabled(self, enabled: bool) -> _PrecisionOptions:
        """PopTorch 2's switch of autocasting: nothing is cast; True says so once."""
        warn_autocast("Precision.autocastEnabled", enabled)
        return self

    def autocastPolicy(self, policy: Policy) -> _PrecisionOptions:
        """PopTorch 2's list of operations to cast: without effect, said once."""
        warn_autocast("Precision.autocastPolicy", True)
        return self


class TensorLocationSettings:
    """Where a kind of tensor lives; every method returns the object it was called on."""

    def __init__(self) -> None:
        self._settings: Dict[str, int] = {}

    def _set_bool(self, key: str, value: bool) -> TensorLocationSettings:
        assert isinstance(value, bool), f"{key} takes a bool, got {value!r}"
        self._settings[key] = int(value)
        return self

    def _set_int(self, key: str, value: int) -> TensorLocationSettings:
        assert isinstance(value, int), f"{key} takes an int, got {value!r}"
        self._settings[key] = value
        return self

    def useOnChipStorage(self, use: Optional[bool] = True) -> TensorLocationSettings:
        """On the chip, off it, or (None) as the compiler likes."""
        if use is None:
            self._settings.pop("onChip", None)
            return self
        return self._set_bool("onChip", use)

    def useReplicatedTensorSharding(self, use: bool = True) -> TensorLocationSettings:
        """Spread over the replicas."""
        return self._set_bool("useReplicatedTensorSharding", use)

    def useIOTilesToLoad(self, use: bool = True) -> TensorLocationSettings:
        """Load through the I/O tiles."""
        return self._set_bool("useIOTilesToLoad", use)

    def useIOTilesToStore(self, use: bool = True) -> TensorLocationSettings:
        """Store on the I/O tiles."""
        return self._set_bool("useIOTilesToStore", use)

    def minElementsForOffChip(self, elements: int) -> TensorLocationSettings:
        """Smaller tensors stay on the chip."""
        return self._set_int("minElementsForOffChip", elements)

    def minElementsForReplicatedTensorSharding(self, elements: int) -> TensorLocationSettings:
        """Smaller tensors are not spread."""
        return self._set_int("minElementsForReplicatedTensorSharding", elements)

    def toDict(self) -> Dict[str, int]:
        """The settings made so far."""
        return dict(self._settings)


class _TensorLocationOptions(OptionStore):
    """Where tensors live: recorded for the cost model, no effect on values."""

    def _set_location(self, kind: str, location: TensorLocationSettings) -> _TensorLocationOptions:
        assert isinstance(location, TensorLocationSettings), f"expected TensorLocationSettings, got {location!r}"
        self.createOrSet(**{f"location_{kind}": location.toDict()})
        return self

    def setActivationLocation(self, location: TensorLocationSettings) -> _TensorLocationOptions:
        """Location of activations."""
        return self._set_location("activation", location)

    def setWeightLocation(self, location: TensorLocationSettings) -> _TensorLocationOptions:
        """Location of weights."""
        return self._set_location("weight", location)

    def setOptimizerLocation(self, location: TensorLocationSettings) -> _TensorLocationOptions:
        """Location of optimizer state."""
        return self._set_location("optimizer", location)

    def setAccumulatorLocation(self, location: TensorLocationSettings) -> _TensorLocationOptions:
        """Location of gradient accumulators."""
        return self._set_location("accumulator", location)

    def numIOTiles(self, num_tiles: int) -> _TensorLocationOptions:
        """Tiles set aside for host I/O: an even number from 32 to 192."""
        is_valid = isinstance(num_tiles, int) and num_tiles % 2 == 0 and 32 <= num_tiles <= 192
        assert is_valid, f"numIOTiles must be an even number between 32 and 192, got {num_tiles!r}"
        self.createOrSet(numIOTiles=num_tiles)
        return self


def _numbers(var_process_id: str, var_num_processes: str) -> Tuple[int, int]:
    """Number of this process and of all, from environment variables."""
    return int(os.environ.get(var_process_id, "0")), int(os.environ.get(var_num_processes, "1"))


class _DistributedOptions(OptionStore):
    """Which of several processes this is."""

    def __init__(self) -> None:
        process, count = _numbers("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
        super().__init__({"num_distributed_processes": count, "distributed_process_id": process})

    def disable(self) -> _DistributedOptions:
        """One process, number 0."""
        return self.configureProcessId(0, 1)

    def configureProcessId(self, process_id: int, num_processes: int) -> _DistributedOptions:
        """This is process `process_id` of `num_processes`."""
        self.set(distributed_process_id=process_id, num_distributed_processes=num_processes)
        return self

    def setEnvVarNames(self, var_num_processes: str, var_process_id: str) -> _DistributedOptions:
        """Read both numbers from environment variables now."""
        return self.configureProcessId(*_numbers(var_process_id, var_num_processes))

    @property
    def processId(self) -> int:
        """Number of this process."""
        return self.distributed_process_id

    @property
    def numProcesses(self) -> int:
        """Number of processes."""
        return self.num_distributed_processes


class _JitOptions(OptionStore):
    """Deprecated: there is one way to trace."""

    def traceModel(self, trace_model: bool) -> _JitOptions:
        """Deprecated; True raises ValueError."""
        logger.warning("Jit.traceModel is deprecated; remove the call.")
        if trace_model:
            raise ValueError("Jit.traceModel(True): tracing with torch.jit no longer exists; remove the call")
        return self
