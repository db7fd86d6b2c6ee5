"""Sections of the config reach poptorch.Options, and splits reach the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import poptorch
from assembly.programs import build_training_model, build_validation_model
from config import BatchConfig, IpuConfig, OptimizerConfig, PrecisionConfig, load_preset, preset_names
from ipu_options.options import training_options, validation_options
from ipu_options.pipeline import place_on_ipus
from training.optimizers import build_optimizer


@pytest.mark.parametrize("name", preset_names())
def test_every_presets_values_reach_the_options(name):
    config = load_preset(name, {})
    options = training_options(config.batch, config.ipu, config.precision, config.optimizer, config.run.seed)
    popart = options._Popart.options
    assert options.replication_factor == config.batch.replicas
    assert options.device_iterations == config.batch.device_iterations
    assert options.Training.gradient_accumulation == config.batch.accumulation_steps
    assert options.random_seed == config.run.seed
    assert popart["partialsTypeMatMuls"] == ("half" if config.precision.half_partials else "float")
    assert popart["enableStochasticRounding"] == config.precision.stochastic_rounding
    shares = config.ipu.available_memory_proportion
    stages = len(config.ipu.pipeline_splits) + 1
    wanted = [shares[i if len(shares) > 1 else 0] for i in range(stages)] if shares else []
    assert [options.available_memory_proportion[i] for i in sorted(options.available_memory_proportion)] == wanted
    assert (popart["convolutionOptions"].get("enableConvDithering") == "true") == config.ipu.convolution_dithering
    location = options.TensorLocations.location_optimizer
    assert location["onChip"] == (not config.ipu.optimizer_state_off_chip)
    assert location["useReplicatedTensorSharding"] == config.ipu.replicated_tensor_sharding
    assert popart["autoRecomputation"] == ((3 if stages > 1 else 1) if config.ipu.recomputation else 0)


@pytest.mark.parametrize("name", preset_names())
def test_every_presets_values_reach_the_optimizer(name):
    config = load_preset(name, {})
    model = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2))
    optimizer = build_optimizer(config, model, {"1.weight", "1.bias"})
    decayed, others = optimizer.param_groups
    assert [len(decayed["params"]), len(others["params"])] == [2, 2]
    assert decayed["weight_decay"] == config.optimizer.weight_decay and others["weight_decay"] == 0
    assert decayed["lr"] == config.learning_rate
    assert optimizer.loss_scaling == config.optimizer.loss_scaling
    assert optimizer.accum_type == getattr(torch, config.optimizer.accumulator_type)
    if config.optimizer.optimizer == "rmsprop":
        assert isinstance(optimizer, poptorch.optim.RMSprop) and optimizer.use_tf_variant
        assert (decayed["alpha"], decayed["eps"]) == (config.rmsprop_decay, config.optimizer.rmsprop_epsilon)
        assert decayed["momentum"] == config.optimizer.momentum
    elif config.optimizer.optimizer == "sgd":
        assert decayed["momentum"] == config.optimizer.momentum
        assert optimizer.use_combined_accum == config.optimizer.combined_accumulator
    else:
        assert decayed["betas"] == config.optimizer.adamw_betas


def test_validation_runs_as_many_iterations_as_it_has_stages():
    batch = BatchConfig(gradient_accumulation=5, replicas=2)
    options = validation_options(batch, 2, IpuConfig(pipeline_splits=("a", "b")), PrecisionConfig(), seed=0)
    assert (options.device_iterations, options.replication_factor, options.Training.gradient_accumulation) == (3, 2, 1)
    assert options.output_mode == poptorch.OutputMode.All


def test_synthetic_data_and_automatic_scaling_reach_the_options():
    batch, optimizer = BatchConfig(gradient_accumulation=1), OptimizerConfig(loss_scaling_mode="automatic")
    popart = training_options(batch, IpuConfig(), PrecisionConfig(), optimizer, 0, is_synthetic=True)._Popart.options
    assert popart["syntheticDataMode"] == 2 and popart["automaticLossScalingSettings.enabled"] is True


def test_memory_proportions_are_one_or_one_for_each_ipu():
    with pytest.raises(ValueError, match="takes 1 or 3 values.*got 2"):
        IpuConfig(pipeline_splits=("a", "b"), available_memory_proportion=(0.1, 0.2))


def network():
    return nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])


def test_splits_begin_stages():
    model = network()
    place_on_ipus(model, model, ["1", "3"])
    printed = [hook.ipu_id for part in model.modules() for hook in part._forward_pre_hooks.values()]
    assert printed == [0, 1, 2]


@pytest.mark.parametrize(
    ("splits", "fragment"),
    [(["7"], "no module '7'"), (["2", "1"], r"in order.*expected \['1', '2'\]"), (["1", "1"], "each once")],
)
def test_splits_out_of_order_or_unknown_are_refused(splits, fragment):
    with pytest.raises(ValueError, match=fragment):
        place_on_ipus(network(), network(), splits)


def both_options(**fields):
    """Options of tiny's training and validation."""
    config = load_preset("tiny", fields)
    programs = build_training_model(config, 10, "meta"), build_validation_model(config, 10, "meta")
    return tuple(program.options for program in programs)


def test_losses_are_summed_and_gradients_averaged():
    """The trainer divides the sums by the micro batches of all replicas; the global batch's gradient is a mean over everything."""
    training, validation = both_options()
    assert training.output_mode == poptorch.OutputMode.Sum
    assert training.Training.accumulation_and_replication_reduction_type == poptorch.ReductionType.Mean
    assert validation.output_mode == poptorch.OutputMode.All


def test_replicas_keep_their_own_running_statistics_and_norms_are_stable():
    for options in both_options():
        assert options.broadcast_buffers is False
        assert options.auto_round_num_ipus is True
        assert options._Popart.options["enableStableNorm"] is True


def test_an_update_is_that_of_the_mean_over_the_whole_batch(generator):
    """2 replicas x 3 micro batches of 2 take plain SGD's step on all 12 samples; outputs are sums over a replica's micro batches."""
    config = load_preset("tiny", {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "precision": "32.32", "loss_scaling": 1.0})
    options = training_options(config.batch, IpuConfig(), config.precision, config.optimizer, 0)
    micro_batch, replicas, accumulation = 2, config.batch.replicas, config.batch.accumulation_steps
    model = Squares()
    images = torch.randn(micro_batch * replicas * accumulation, 3, generator=generator)
    expected = model.weight.detach() - 0.1 * torch.autograd.grad(model(images), model.weight)[0]
    losses = [model(part).item() for part in images.split(micro_batch)]  # iterations, accumulation, replicas: the last one fastest
    executor = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
    outputs = executor(images)
    executor.copyWeightsToHost()
    torch.testing.assert_close(model.weight.detach(), expected)
    by_replica = torch.tensor(losses).reshape(accumulation, replicas).sum(0)
    torch.testing.assert_close(outputs.reshape(-1).cpu(), by_replica)


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, x):
        return poptorch.identity_loss((x @ self.weight - 1).square().mean(), "mean")
