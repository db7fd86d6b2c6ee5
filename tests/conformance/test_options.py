"""Section 2: Options."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import poptorch


def test_setters_chain_and_read_back_in_snake_case():
    options = poptorch.Options().deviceIterations(4).replicationFactor(2)
    assert (options.device_iterations, options.replication_factor) == (4, 2)
    assert options.Training.gradientAccumulation(3) is options.Training
    assert options.Training.gradient_accumulation == 3


def test_defaults():
    options = poptorch.Options()
    assert options.defaultOutputMode()
    assert (options.device_iterations, options.replication_factor, options.Training.gradient_accumulation) == (1, 1, 1)
    assert options.Training.accumulation_and_replication_reduction_type == poptorch.ReductionType.Mean
    assert not options.auto_round_num_ipus


def test_wrong_types_are_assertions():
    with pytest.raises(AssertionError):
        poptorch.Options().deviceIterations("3")
    with pytest.raises(AssertionError):
        poptorch.Options().outputMode(2.5)
    with pytest.raises(AssertionError):
        poptorch.Options().outputMode(poptorch.OutputMode.EveryN)
    with pytest.raises(AssertionError):
        poptorch.Options().randomSeed("x")
    with pytest.raises(AssertionError):
        poptorch.Options().setExecutionStrategy(3)
    with pytest.raises(ValueError):
        poptorch.Options().Training.accumulationAndReplicationReductionType(poptorch.ReductionType.NoReduction)
    with pytest.raises(ValueError):
        poptorch.Options().Precision.setPartialsType(torch.int32)


def test_attributes_are_checked_like_setters():
    options = poptorch.Options()
    options.replication_factor = 4
    assert options.replication_factor == 4
    with pytest.raises(AssertionError):
        options.replication_factor = "4"


@pytest.mark.parametrize("use", ["training", "inference", "loader"])
def test_options_freeze_after_first_use(use):
    options = poptorch.Options()
    model = torch.nn.Linear(2, 2)
    if use == "training":
        poptorch.trainingModel(model, options)
    elif use == "inference":
        poptorch.inferenceModel(model, options)
    else:
        poptorch.DataLoader(options, torch.zeros(4, 2))
    for change in (lambda: options.deviceIterations(2), lambda: options.Training.gradientAccumulation(2)):
        with pytest.raises(AttributeError, match="Can't modify frozen Options"):
            change()


def test_shallow_copies_share_their_values():
    options = poptorch.Options()
    copy.copy(options).deviceIterations(4).Training.gradientAccumulation(5)
    assert (options.device_iterations, options.Training.gradient_accumulation) == (4, 5)  # as Python's copies do


def test_clones_are_independent_and_unfrozen():
    options = poptorch.Options().deviceIterations(2)
    poptorch.inferenceModel(torch.nn.Linear(2, 2), options)
    for duplicate in (options.clone(), copy.deepcopy(options)):
        duplicate.deviceIterations(5)
        duplicate.Training.gradientAccumulation(7)
        duplicate.Precision.enableStochasticRounding(True)
        assert duplicate._Popart.options["enableStochasticRounding"] is True
    assert (options.device_iterations, options.Training.gradient_accumulation) == (2, 1)
    assert "enableStochasticRounding" not in options._Popart.options


def test_options_pickle():
    options = pickle.loads(pickle.dumps(poptorch.Options().deviceIterations(3)))
    assert options.device_iterations == 3


def test_absent_keys_raise_attribute_error():
    options = poptorch.Options()
    assert not options.exists("random_seed")
    with pytest.raises(AttributeError):
        options.random_seed  # noqa: B018
    with pytest.raises(AttributeError):
        options._unknown = 1
    options.randomSeed(3)
    assert options.exists("random_seed") and options("random_seed") == 3


def test_random_seed_seeds_the_host_at_once():
    poptorch.Options().randomSeed(11)
    first = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(first, torch.rand(3))


def test_memory_proportions_by_ipu():
    options = poptorch.Options().setAvailableMemoryProportion({"IPU0": 0.2, "IPU1": 0.4})
    assert options.available_memory_proportion == {0: 0.2, 1: 0.4}
    with pytest.raises(AssertionError):
        poptorch.Options().setAvailableMemoryProportion({"0": 0.2})


def test_tensor_locations():
    options = poptorch.Options()
    options.TensorLocations.setOptimizerLocation(
        poptorch.TensorLocationSettings().useOnChipStorage(False).useReplicatedTensorSharding(True)
    )
    assert options.TensorLocations.location_optimizer == {"onChip": 0, "useReplicatedTensorSharding": 1}
    assert options.TensorLocations.numIOTiles(64)("numIOTiles") == 64
    for wrong in (31, 33, 194, "64"):
        with pytest.raises(AssertionError, match="numIOTiles must be an"):
            options.TensorLocations.numIOTiles(wrong)


def test_input_replica_grouping():
    options = poptorch.Options().replicationFactor(4).inputReplicaGrouping(2, poptorch.CommGroupType.Orthogonal)
    assert options.input_group_size == 2
    for size, kind in ((3, poptorch.CommGroupType.Consecutive), (8, poptorch.CommGroupType.Consecutive), (2, poptorch.CommGroupType.All)):
        with pytest.raises(ValueError):
            poptorch.Options().replicationFactor(4).inputReplicaGrouping(size, kind)


def test_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("POPTORCH_DEFAULT_OPTIONS", '{"deviceIterations": 6}')
    monkeypatch.setenv("POPTORCH_CACHE_DIR", str(tmp_path))
    options = poptorch.Options()
    assert options.device_iterations == 6
    assert options._Popart.options["cachePath"] == str(tmp_path)


def test_flags_of_tensor_locations_default_to_true():
    location = poptorch.TensorLocationSettings().useOnChipStorage().useReplicatedTensorSharding().useIOTilesToLoad().useIOTilesToStore()
    assert location.toDict() == dict(onChip=1, useReplicatedTensorSharding=1, useIOTilesToLoad=1, useIOTilesToStore=1)


def on_ipus(*ipus):
    """A model with a block on each of these IPUs."""
    layers = [poptorch.BeginBlock(torch.nn.Linear(2, 2), f"block{number}", ipu_id=ipu) for number, ipu in enumerate(ipus)]
    return torch.nn.Sequential(*layers)


def test_rounding_the_number_of_ipus_is_said(caplog):
    options = poptorch.Options().autoRoundNumIPUs(True).setExecutionStrategy(poptorch.ShardedExecution())
    poptorch.inferenceModel(on_ipus(0, 1, 2), options)(torch.ones(1, 2))
    assert [record for record in caplog.records if "4 IPUs are reserved" in record.message and "uses 3" in record.message]
    caplog.clear()
    poptorch.inferenceModel(on_ipus(0, 1), options.clone())(torch.ones(1, 2))
    assert not [record for record in caplog.records if "reserved" in record.message]


def test_powers_of_two_are_checked_before_the_limit_of_64():
    options = poptorch.Options().replicationFactor(33).setExecutionStrategy(poptorch.ShardedExecution())
    with pytest.raises(poptorch.Error, match="The model specifies the use of 66 IPUs"):
        poptorch.inferenceModel(on_ipus(0, 1), options)(torch.ones(33, 2))
    with pytest.raises(poptorch.Error, match="Too many IPUs requested"):
        poptorch.inferenceModel(on_ipus(0, 1), options.clone().autoRoundNumIPUs(True))(torch.ones(33, 2))


@pytest.mark.parametrize("key", ["enableDistributedReplicatedGraphs", "opxAliasChecking", "opxModifyChecking"])
def test_popart_options_that_programs_set(key):
    options = poptorch.Options()
    options._Popart.set(key, True)
    assert poptorch.inferenceModel(torch.nn.Identity(), options)(torch.ones(1, 2)).tolist() == [[1, 1]]


def test_distributed_reads_mpi(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    distributed = poptorch.Options().Distributed
    assert (distributed.numProcesses, distributed.processId) == (4, 2)
    distributed.disable()
    assert (distributed.numProcesses, distributed.processId) == (1, 0)


def test_jit_is_gone():
    with pytest.raises(ValueError):
        poptorch.Options().Jit.traceModel(True)


def test_offline_versions():
    assert poptorch.Options().useOfflineIpuTarget(21).ipu_version == 21
    with pytest.raises(AssertionError):
        poptorch.Options().useOfflineIpuTarget(3)


def test_anchors_and_buffers_by_name_are_kept():
    options = poptorch.Options().anchorTensor("short", "long", poptorch.OutputMode.EveryN, 2)
    assert "short" in options.anchored_tensors
    assert options.updatableNamedBuffers(["b"]) is options


def test_unknown_popart_options_are_found_at_compilation():
    options = poptorch.Options()
    options._Popart.set("accumulateOuterFragmentSettings.schedule", 2)
    options._Popart.set("nonsenseSettings", 1)
    with pytest.raises(poptorch.Error, match="nonsenseSettings"):
        poptorch.inferenceModel(torch.nn.Linear(2, 2), options)(torch.ones(1, 2))


def test_deprecated_precision_options_change_nothing(caplog):
    precision = poptorch.Options().Precision
    assert precision.halfFloatCasting(poptorch.HalfFloatCastingBehavior.Default) is precision
    assert precision.runningStatisticsAlwaysFloat(True) is precision
    assert len(caplog.records) == 2
    with pytest.raises(ValueError):
        precision.runningStatisticsAlwaysFloat(1)
    with pytest.raises(AssertionError):
        precision.enableFloatingPointExceptions(1)
