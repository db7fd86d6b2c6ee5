"""Networks: structure, norms, initialisation, and the mistakes they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from config import ConfigError, ModelConfig
from models.architectures import RESNETS
from models.factory import build_model
from models.group_norm import GroupNorm
from models.initialisation import TRUNCATED_DEVIATION
from models.norm import norm_parameter_names
from models.proxy_norm import ProxyNormAct

NORMS = {
    "bn": dict(norm="batch", proxy_norm=False),
    "gn": dict(norm="group", proxy_norm=False),
    "ln": dict(norm="layer", proxy_norm=False),
    "none": dict(norm="none", proxy_norm=False),
    "ln+pn": dict(norm="layer", proxy_norm=True),
    "gn+pn": dict(norm="group", proxy_norm=True),
}


def cifar(**values):
    return ModelConfig(**{"architecture": "efficientnet-cifar", **values})


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_trains(norm, generator):
    network = build_model(cifar(**NORMS[norm]), num_classes=5).train()
    logits = network(torch.randn(2, 3, 16, 16, generator=generator))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("group_size", [1, 2, 4, 8, 16])
def test_spatial_convolutions_have_the_stated_group_size(group_size):
    network = build_model(cifar(group_size=group_size), 10)
    spatial = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)][1:]
    assert len(spatial) == 16
    in_group = [module.weight.shape[1] for module in spatial]
    assert all(size == group_size for size in in_group)


def test_expand_ratio_reaches_the_blocks():
    network = build_model(cifar(expand_ratio=6, group_size=1), 10)
    block = network.get_submodule("blocks.1.1")
    assert block.conv_pw.out_channels == 6 * block.conv_pw.in_channels


def test_cifar_size_reduces_resolution_by_8(generator):
    network = build_model(cifar(), 10)
    assert network.forward_features(torch.randn(1, 3, 32, 32, generator=generator)).shape[2:] == (4, 4)


@pytest.mark.parametrize("group_size", [3, 24, 64])
def test_a_group_size_that_does_not_divide_is_refused(group_size):
    with pytest.raises(ValueError, match=f"group_size {group_size} does not divide"):
        build_model(cifar(group_size=group_size), 10)


def test_norm_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="norm_groups 3 does not divide"):
        build_model(cifar(norm="group", norm_groups=3), 10)


def test_projections_between_proxy_norms_have_no_shift():
    network = build_model(cifar(proxy_norm=True), 10)
    projections = [module for module in network.modules() if isinstance(module, GroupNorm)]
    assert len(projections) == 16
    assert all(module.bias is None for module in projections)
    assert isinstance(network.bn1, ProxyNormAct)


def test_weight_decay_leaves_out_norms_but_not_proxies():
    network = build_model(cifar(proxy_norm=True), 10)
    undecayed = norm_parameter_names(network)
    decayed = {name for name, _ in network.named_parameters()} - undecayed
    assert "bn1.weight" in undecayed and "bn1.bias" in undecayed
    assert "bn1.proxy_weight" in decayed and "bn1.proxy_bias" in decayed
    assert "classifier.bias" in decayed
    assert not {name for name in undecayed if "conv" in name or "classifier" in name}


def test_initialisation_follows_the_facts():
    torch.manual_seed(0)
    network = build_model(ModelConfig(architecture="efficientnet-b0"), 1000)
    group_conv = network.get_submodule("blocks.5.3.conv_dw")
    point_conv = network.get_submodule("blocks.5.3.conv_pw")
    # Variance 2 / fan: fan_in = 16 * 25 for a group of 16 and 5 x 5, fan_out = 768 for the expansion. 5 %: a few 10^5 samples.
    assert group_conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 25)), rel=0.05)
    assert point_conv.weight.std().item() == pytest.approx(math.sqrt(2 / 768), rel=0.05)
    assert group_conv.weight.abs().max().item() <= 2 * math.sqrt(2 / (16 * 25)) / TRUNCATED_DEVIATION + 1e-6
    limit = math.sqrt(6 / (1280 + 1000))
    assert limit * 0.99 < network.classifier.weight.abs().max().item() <= limit
    assert not network.classifier.bias.any()


@pytest.mark.parametrize("architecture", [RESNETS[0], RESNETS[2]])
@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
def test_resnets_take_every_norm(architecture, norm, generator):
    config = ModelConfig(architecture=architecture, norm=norm, dropout=0.0)
    network = build_model(config, 7).train()
    assert network(torch.randn(2, 3, 32, 32, generator=generator)).shape == (2, 7)
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "layer": nn.GroupNorm, "none": nn.Identity}
    assert isinstance(network.bn1, kinds[norm])


def test_resnet_refuses_proxy_norm_and_uses_dropout():
    with pytest.raises(ValueError, match="proxy_norm is not available for resnet18"):
        build_model(ModelConfig(architecture="resnet18", proxy_norm=True), 10)
    network = build_model(ModelConfig(architecture="resnet18", norm="group", dropout=0.4), 10)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.4]


def test_dropout_and_drop_path_reach_the_network():
    network = build_model(cifar(dropout=0.3, drop_path=0.4), 10)
    assert network.drop_rate == 0.3
    rates = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert rates == pytest.approx([0.4 * index / 16 for index in range(1, 16)])  # block 0 is never skipped


def test_batch_norm_momentum_and_epsilons_reach_the_norms():
    batch = build_model(cifar(norm="batch", batch_norm_momentum=0.03, norm_epsilon=0.01), 10)
    norms = [module for module in batch.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(module.momentum, module.eps) for module in norms} == {(0.03, 0.01)}
    proxied = build_model(cifar(proxy_norm=True, norm_epsilon=0.02, proxy_epsilon=0.5), 10)
    acts = [module for module in proxied.modules() if isinstance(module, ProxyNormAct)]
    assert {(module.norm_epsilon, module.proxy_epsilon) for module in acts} == {(0.02, 0.5)}


def test_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
