"""Names of PopART's session options, which `Options._Popart.set` takes."""

from __future__ import annotations

import difflib
from enum import Enum
from typing import Any

from ipu_model.runtime.errors import Error

_NAMES = set(
    """
    accumulateOuterFragmentSettings accumulationFactor accumulationAndReplicationReductionType aliasZeroCopy autoRecomputation
    automaticLossScalingSettings autodiffSettings bufferingDepthMap bufferingStreams cachePath compilationProgressLogger
    compilationProgressTotal compileEngine constantFoldingOfMultipleConsumers constantWeights convolutionOptions createHalfGradient
    createImplicitPipeliningFwdOnlyProgram customCodeletCompileFlags customCodelets customTransformApplierSettings
    decomposeGradSum defaultBufferingDepth defaultPrefetchBufferingDepth delayVarUpdates developerSettings
    disableGradAccumulationTensorStreams disableOptimizerStateTensorStreams disableWeightSharing dotChecks dotOpNames
    enableConstantFoldingPass enableDistributedReplicatedGraphs
    enableEfficientOverlapIOTopoCons enableEngineCaching enableExplicitIR enableExplicitMainLoops enableFloatingPointChecks
    enableFullyConnectedPass enableGradientAccumulation enableInplaceAmbiguityChecking enableLoadAndOffloadRNGState
    enableMergeExchange enableNonStableSoftmax enableOutlining enableOutliningCopyCostPruning enablePipelining enablePrefetchDatastreams
    enablePreAliasPatterns enableReplicatedGraphs enableRngStateManagement enableSerializedMatmuls enableStableNorm
    enableStochasticRounding enableSupportedDataTypeCasting enableVariablesCaching engineOptions ensureFp32LossScaleTensor
    executionPhaseSettings experimentalSettings explicitPipeliningEnabled explicitRecomputation exportPoplarComputationGraph
    exportPoplarVertexGraph finalDotOp firstDotOp gclOptions globalReplicaOffset globalReplicationFactor
    groupHostSync groupNormStridedChannelGrouping hardwareInstrumentations hostAllReduce hostWeightUpdate implicitPipeliningEnabled
    instrumentWithHardwareCycleCounter instrumentation kahnTieBreaker logDir looseThresholdAtPeak lstmOptions matmulOptions
    meanAccumulationAndReplicationReductionStrategy mergeVarUpdate mergeVarUpdateMemThreshold nanOverflow numIOTiles
    opxAliasChecking opxModifyChecking
    optimizerStateTensorLocationSettings outlineSequenceBreakCost outlineThreshold partialsTypeMatMuls patterns patterns_level
    prefetchBufferingDepthMap rearrangeAnchorsOnHost rearrangeStreamsOnHost reduceToRemote replicatedCollectivesSettings
    replicatedGraphCount reportOptions saveInitializersToFile scheduleNonWeightUpdateGradientConsumersEarly separateCallOpPdfs
    serializedPoprithmsShiftGraphsDir shouldDelayVarUpdates strictOpVersions subgraphCopyingStrategy swapLimitScheduler syntheticDataMode
    tensorLocationSettingsOverride timeLimitScheduler timePartitionLogger transitiveClosureOptimizationThreshold updatableNamedBuffers
    useHostCopyOps useLoopCandidateCreator useOverlapIO virtualGraphMode weightTensorLocationSettings activationTensorLocationSettings
    accumulatorTensorLocationSettings batchSerializationSettings
    """.split()
)


def check_key(key: str) -> None:
    """`Error` where PopART has no such option; settings of a group follow its name and a dot."""
    if key.split(".")[0] not in _NAMES:
        nearest = difflib.get_close_matches(key.split(".")[0], sorted(_NAMES), 1)
        hint = f" The nearest is {nearest[0]!r}." if nearest else ""
        raise Error(f"Unknown PopART option {key!r} in Options._Popart.set.{hint}", type="poptorch_cpp_error")


def check_value(key: str, value: Any) -> None:
    """`Error` for a value of a type that no option has: neither number nor text, nor a list or dict of them."""
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif value is None or isinstance(value, (bool, int, float, str, Enum)):
        return
    else:
        raise Error(
            f"The option {key!r} has a value of type {type(value).__name__}: expected a number, a text, or a list or dict of these.",
            type="poptorch_cpp_error",
        )
    for part in parts:
        check_value(key, part)
