"""From `poptorch.Options` to the runtime's typed settings: the one place that knows under which names options keep their values."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, Optional

from ipu_model.runtime.device.layout import Layout
from ipu_model.runtime.device.settings import Anchor, Location, OutputRule, RunSettings
from ipu_model.runtime.errors import Error

from .._placement.blocks import ExecutionStrategy
from ..enums import CommGroupType, ConnectionType, MeanReductionStrategy, OutputMode, ReductionType
from ..options import Options

_KINDS = ("activation", "weight", "optimizer", "accumulator")


def executor_options(options: Optional[Options], is_training: bool) -> Options:
    """An executor's own copy, with the default output mode chosen; the given ones are fixed.

    Raises:
        Error: no options, or what inference refuses.
    """
    if options is not None and not isinstance(options, Options):
        raise Error(f"options must be a poptorch.Options, got {options!r}.")
    given = options if options is not None else Options()
    given._freeze()
    own = given.clone()
    if own.defaultOutputMode():
        own.outputMode(OutputMode.Final if is_training else OutputMode.All)
    if not is_training and own.Training.gradient_accumulation != 1:
        raise Error(
            f"You must set poptorch.Options().Training.gradientAccumulation to 1 for inference, which is its default; it is "
            f"{own.Training.gradient_accumulation}. poptorch.inferenceModel() has no weight update to accumulate for: to fill a pipeline, "
            "set deviceIterations instead."
        )
    own._freeze()
    return own


def keep_running_means(options: Options) -> None:
    """Have accumulators keep running means, whatever was chosen."""
    options._unfreeze()
    options.Training.setMeanAccumulationAndReplicationReductionStrategy(MeanReductionStrategy.Running)
    options._freeze()


def attached_options(options: Options) -> Options:
    """A copy, free to change, of options under which a model was compiled for a device that was not there."""
    copied = options.clone()
    copied._unfreeze()
    copied.deleteIfExists("ipu_version")
    return copied.connectionType(ConnectionType.Always)


def strategy_of(options: Options) -> ExecutionStrategy:
    """What places the blocks that forward begins, and numbers those without an id."""
    return options._execution_strategy


def run_settings(options: Options) -> RunSettings:
    """What options say."""
    popart: Dict[str, Any] = options._Popart.options
    training, distributed, locations = options.Training, options.Distributed, options.TensorLocations
    return RunSettings(
        layout=_layout(options),
        outputs=OutputRule(options.output_mode, options.output_return_period),
        anchors=tuple(_anchor(options, short, *anchored) for short, anchored in options.anchored_tensors.items()),
        is_mean_reduction=training.accumulation_and_replication_reduction_type == ReductionType.Mean,
        is_running_mean=training.meanAccumulationAndReplicationReductionStrategy == MeanReductionStrategy.Running,
        is_automatic_loss_scaling=bool(popart.get("automaticLossScalingSettings.enabled")),
        seed=options.random_seed if options.exists("random_seed") else None,
        is_stochastic_rounding=bool(popart.get("enableStochasticRounding")),
        is_synthetic=bool(popart.get("syntheticDataMode")),
        checks_floating_point=bool(popart.get("enableFloatingPointChecks")),
        counts_cycles=bool(popart.get("instrumentWithHardwareCycleCounter")),
        broadcasts_buffers=options.broadcast_buffers,
        updatable_buffers=tuple(popart.get("updatableNamedBuffers", ())),
        is_recomputed=bool(popart.get("autoRecomputation")),
        partials=popart.get("partialsTypeMatMuls", "float"),
        locations={kind: _location(locations(f"location_{kind}")) for kind in _KINDS if locations.exists(f"location_{kind}")},
        num_io_tiles=locations("numIOTiles") if locations.exists("numIOTiles") else None,
        available_memory_proportions=dict(options.available_memory_proportion),
        is_pipelined=options._execution_strategy.has_pipeline,
        is_ipu_count_rounded=options.auto_round_num_ipus,
        process=distributed.processId,
        num_processes=distributed.numProcesses,
        cache_folder=popart["cachePath"] if popart.get("enableEngineCaching") else None,
        report_folder=_report_folder(popart),
        name=options.model_name if options.exists("model_name") else None,
        shows_progress=options._show_compilation_progress_bar,
        expects_any_attribute=options._relax_optimizer_checks,
        graph_options=tuple(popart),
    )


def _layout(options: Options) -> Layout:
    return Layout(
        options.device_iterations,
        options.Training.gradient_accumulation,
        options.replication_factor,
        options.input_group_size,
        options.input_cgt == CommGroupType.Orthogonal,
    )


def _anchor(options: Options, short_name: str, tensor_name: str, mode: Optional[int], period: int) -> Anchor:
    """An anchor without a mode of its own has the model's."""
    if mode is None:
        return Anchor(short_name, tensor_name, OutputRule(options.output_mode, options.output_return_period))
    return Anchor(short_name, tensor_name, OutputRule(mode, period))


def _location(settings: Mapping[str, int]) -> Location:
    return Location(is_on_chip=bool(settings.get("onChip", 1)), is_sharded=bool(settings.get("useReplicatedTensorSharding", 0)))


def _report_folder(popart: Mapping[str, Any]) -> Optional[str]:
    """Where `Options.enableProfiling`, or autoReport.* in POPLAR_ENGINE_OPTIONS, want a report."""
    engine: Dict[str, Any] = json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS") or "{}")
    engine.update(popart.get("engineOptions", {}))
    is_wanted = str(engine.get("autoReport.all", "false")).lower() == "true"
    return str(engine.get("autoReport.directory", ".")) if is_wanted else None
