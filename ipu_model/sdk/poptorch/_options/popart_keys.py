"""Names of PopART's session options, which `Options._Popart.set` takes."""

from __future__ import annotations

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


def is_known_key(key: str) -> bool:
    """Whether PopART has such an option; settings of a group follow its name and a dot."""
    return key.split(".")[0] in _NAMES
