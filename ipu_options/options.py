"""Sections of the config -> `poptorch.Options`."""

from __future__ import annotations

from typing import Dict, Sequence

import torch

import popdist
import popdist.poptorch
import poptorch
from config import BatchConfig, ConfigError, IpuConfig, OptimizerConfig, PrecisionConfig

# popart.RecomputationType, which real PopTorch takes as an int
_NO_RECOMPUTATION, _STANDARD_RECOMPUTATION, _PIPELINE_RECOMPUTATION = 0, 1, 3


def training_options(
    batch: BatchConfig, ipu: IpuConfig, precision: PrecisionConfig, optimizer: OptimizerConfig, seed: int, is_synthetic: bool = False
) -> poptorch.Options:
    """Options of the training model; outputs are summed over the micro batches of a call."""
    options = _shared_options(ipu, precision, seed, batch.replicas, is_synthetic)
    options.deviceIterations(batch.device_iterations)
    options.outputMode(poptorch.OutputMode.Sum)
    options.Training.gradientAccumulation(batch.accumulation_steps)
    options.Training.accumulationAndReplicationReductionType(poptorch.ReductionType.Mean)
    options.Precision.enableStochasticRounding(precision.stochastic_rounding)
    if ipu.convolution_dithering:
        options.Training.setConvolutionDithering(True)
    if optimizer.loss_scaling_mode == "automatic":
        options.Training.setAutomaticLossScaling(True)
    location = poptorch.TensorLocationSettings().useOnChipStorage(not ipu.optimizer_state_off_chip)
    location.useReplicatedTensorSharding(ipu.replicated_tensor_sharding)
    options.TensorLocations.setOptimizerLocation(location)
    options._Popart.set("autoRecomputation", _recomputation(ipu))
    return options


def validation_options(
    batch: BatchConfig, replicas: int, ipu: IpuConfig, precision: PrecisionConfig, seed: int, is_synthetic: bool = False
) -> poptorch.Options:
    """Options of the validation model; a pipeline needs as many device iterations as it has stages."""
    options = _shared_options(ipu, precision, seed, replicas, is_synthetic)
    options.deviceIterations(max(batch.device_iterations, ipu.stages))
    options.outputMode(poptorch.OutputMode.All)
    return options


def _shared_options(ipu: IpuConfig, precision: PrecisionConfig, seed: int, replicas: int, is_synthetic: bool) -> poptorch.Options:
    options = _launched_options(replicas, ipu.stages)
    options.randomSeed(seed)
    options.enableStableNorm(True)
    options.autoRoundNumIPUs(True)
    options.broadcastBuffers(False)  # batch norm keeps its statistics for each replica
    options.Precision.setPartialsType(torch.float16 if precision.half_partials else torch.float32)
    if ipu.available_memory_proportion is not None:
        options.setAvailableMemoryProportion(_memory_proportions(ipu.available_memory_proportion, ipu.stages))
    if is_synthetic:
        options.enableSyntheticData(True)
    return options


def _launched_options(replicas: int, ipus_per_replica: int) -> poptorch.Options:
    """Options of this process: with all replicas, or, under poprun, with its share of them."""
    if not popdist.isPopdistEnvSet():
        options = poptorch.Options()
        options.replicationFactor(replicas)
        return options
    if popdist.getNumTotalReplicas() != replicas:
        raise ConfigError(f"poprun was started with --num-replicas {popdist.getNumTotalReplicas()}, the config has replicas {replicas}")
    if popdist.getNumIpusPerReplica() != ipus_per_replica:
        raise ConfigError(
            f"poprun was started with --ipus-per-replica {popdist.getNumIpusPerReplica()}, a replica has {ipus_per_replica} pipeline stages"
        )
    return popdist.poptorch.Options(ipus_per_replica=ipus_per_replica)


def _memory_proportions(shares: Sequence[float], num_ipus: int) -> Dict[str, float]:
    """One share for each IPU of a replica; one alone is that of all."""
    return {f"IPU{index}": shares[index if len(shares) > 1 else 0] for index in range(num_ipus)}


def _recomputation(ipu: IpuConfig) -> int:
    if not ipu.recomputation:
        return _NO_RECOMPUTATION
    return _PIPELINE_RECOMPUTATION if ipu.pipeline_splits else _STANDARD_RECOMPUTATION
