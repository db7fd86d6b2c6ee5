"""Figures of arXiv 2106.03640 (Masters et al.) and of its published code, each with its source."""

from __future__ import annotations

import pytest
import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv

from config import ModelConfig, load_preset
from models.counting import count
from models.factory import build_model

# Parameters in millions, recomputed from Graphcore's TensorFlow application v2.3.0; its unit tests state 5,288,836 for B0 and 7,794,472
# for B1, each with 288 for a fourth input channel of the stem that its fused preprocessing adds.
PARAMETERS = {
    "b0": {"g1-gn": 5.289, "g16-gn": 5.914, "g16-lnpn": 5.965},
    "b1": {"g1-gn": 7.794, "g16-gn": 8.332, "g16-lnpn": 8.407},
    "b2": {"g1-gn": 9.110, "g16-gn": 9.504, "g16-lnpn": 9.586},
    "b3": {"g1-gn": 12.233, "g16-gn": 12.591, "g16-lnpn": 12.696},
    "b4": {"g1-gn": 19.342, "g16-gn": 19.328, "g16-lnpn": 19.479},
    "b5": {"g1-gn": 30.390, "g16-gn": 28.715, "g16-lnpn": 28.923},
}
# Front-page figure, digitised: forward "FLOPs" in G, one multiply-accumulate counted as one.
FIGURE_MACS = {
    "b0": {"g1-gn": 0.399, "g16-gn": 0.651, "g16-gn-half": 0.332},
    "b1": {"g1-gn": 0.698, "g16-gn": 1.124, "g16-gn-half": 0.605},
    "b2": {"g1-gn": 0.996, "g16-gn": 1.524, "g16-gn-half": 0.866},
    "b3": {"g1-gn": 1.84, "g16-gn": 2.73, "g16-gn-half": 1.265},
    "b4": {"g1-gn": 4.42, "g16-gn": 6.18, "g16-gn-half": 2.73},
    "b5": {"g1-gn": 10.2, "g16-gn": 13.41, "g16-gn-half": 6.95},
}
# Section 1.5, configs.yml in graphcore-research: micro batch, stages, replicas, accumulation, first blocks of stages 2, 3, ..., and the
# available memory proportion where it is not PopTorch's own. LN+PN has GN's, but for one proportion.
CONFIGS = {
    "b0-g1-gn": (12, 2, 8, 8, "3b", ()),
    "b1-g1-gn": (12, 4, 4, 16, "2b,4a,5c", ()),
    "b2-g1-gn": (12, 4, 4, 16, "2b,4a,5d", (0.2,)),
    "b3-g1-gn": (6, 4, 4, 32, "2b,4a,5d", ()),
    "b4-g1-gn": (3, 4, 4, 64, "2b,4b,6c", (0.2,)),
    "b5-g1-gn": (2, 4, 4, 96, "2c,4a,5g", (0.07, 0.1, 0.1, 0.1)),
    "b0-g16": (12, 2, 8, 8, "3b", ()),
    "b1-g16": (8, 2, 8, 12, "4b", ()),
    "b2-g16": (12, 4, 4, 16, "2b,4a,5d", (0.2,)),
    "b3-g16": (8, 4, 4, 24, "2b,4b,5e", ()),
    "b4-g16": (4, 4, 4, 48, "2c,4c,6a", ()),
    "b5-g16": (2, 4, 4, 96, "2e,4f,6e", (0.2,)),
    "b0-g16-half": (24, 2, 8, 4, "4b", ()),
    "b1-g16-half": (24, 4, 4, 8, "2b,4a,5d", ()),
    "b2-g16-half": (24, 4, 4, 8, "2b,4a,5d", ()),
    "b3-g16-half": (12, 4, 4, 16, "2b,4b,5e", ()),
    "b4-g16-half": (8, 4, 4, 24, "2c,4c,6a", ()),
    "b5-g16-half": (3, 4, 4, 64, "2e,4e,6c", ()),
}
RESOLUTIONS = {"b0": (224, 160), "b1": (240, 176), "b2": (260, 196), "b3": (300, 204), "b4": (380, 252), "b5": (456, 328)}
MIXING = {"b0": (0.1, 0.0), "b1": (0.1, 0.95), "b2": (0.1, 0.9), "b3": (0.2, 0.9), "b4": (0.2, 0.85), "b5": (0.2, 0.8)}  # mixup, cutmix
DROPOUT = {"b0": 0.2, "b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4}
VARIANTS = ("g1-gn", "g16-gn", "g16-lnpn", "g16-gn-half", "g16-lnpn-half")
# Section 3.1: channels of the stem, the seven stages and the top, and repeats of the stages.
SHAPES = {
    "b0": (32, (16, 24, 40, 80, 112, 192, 320), 1280, (1, 2, 2, 3, 3, 4, 1)),
    "b1": (32, (16, 24, 40, 80, 112, 192, 320), 1280, (2, 3, 3, 4, 4, 5, 2)),
    "b2": (32, (16, 24, 48, 88, 120, 208, 352), 1408, (2, 3, 3, 4, 4, 5, 2)),
    "b3": (40, (24, 32, 48, 96, 136, 232, 384), 1536, (2, 3, 3, 5, 5, 6, 2)),
    "b4": (48, (24, 32, 56, 112, 160, 272, 448), 1792, (2, 4, 4, 6, 6, 8, 2)),
    "b5": (48, (24, 40, 64, 128, 176, 304, 512), 2048, (3, 5, 5, 7, 7, 9, 3)),
}


def counted(size, variant):
    config = load_preset(f"efficientnet-{size}-{variant}-16ipu", {})
    return count(build_model(config.model, 1000), config.data.image_size)


@pytest.mark.parametrize("size", PARAMETERS)
@pytest.mark.parametrize("variant", ["g1-gn", "g16-gn", "g16-lnpn"])
def test_section_1_3_parameters(size, variant):
    # Published to three digits after the point.
    assert counted(size, variant).num_parameters / 1e6 == pytest.approx(PARAMETERS[size][variant], abs=0.0006)


@pytest.mark.parametrize("size", FIGURE_MACS)
@pytest.mark.parametrize("variant", ["g1-gn", "g16-gn", "g16-gn-half"])
def test_front_page_figure_macs(size, variant):
    # 4 %: the figure's own reading error, and what it counts besides convolutions and the classifier is not known.
    assert counted(size, variant).macs / 1e9 == pytest.approx(FIGURE_MACS[size][variant], rel=0.04)


@pytest.mark.parametrize(("size", "published"), [("b6", 43e6), ("b7", 66e6)])
def test_efficientnet_paper_table_2_parameters(size, published):
    """arXiv 1905.11946, Table 2: depthwise, batch norm; rounded to millions there."""
    config = ModelConfig(architecture=f"efficientnet-{size}", group_size=1, expand_ratio=6, norm="batch")
    assert sum(p.numel() for p in build_model(config, 1000).parameters()) == pytest.approx(published, abs=0.6e6)


def test_graphcores_unit_tests():
    for size, stated in (("b0", 5_288_836), ("b1", 7_794_472)):
        assert counted(size, "g1-gn").num_parameters == stated - 288


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", RESOLUTIONS)
def test_section_1_5_configurations(size, variant):
    config = load_preset(f"efficientnet-{size}-{variant}-16ipu", {})
    batch, ipu, model = config.batch, config.ipu, config.model
    micro, stages, replicas, accumulation, splits, proportion = CONFIGS[f"{size}-{variant}".replace("g16-gn", "g16").replace("-lnpn", "")]
    proportion = (0.2,) if (size, variant) == ("b5", "g16-lnpn-half") else proportion
    paths = tuple(f"blocks.{int(block[0]) - 1}.{'abcdefgh'.index(block[1])}" for block in splits.split(","))
    assert (batch.micro_batch_size, ipu.stages, batch.replicas, batch.accumulation_steps) == (micro, stages, replicas, accumulation)
    assert (ipu.pipeline_splits, ipu.available_memory_proportion or (), batch.images_per_update) == (paths, proportion, 768)
    assert config.data.image_size == RESOLUTIONS[size][variant.endswith("half")]
    assert (config.precision.precision, ipu.optimizer_state_off_chip) == (
        ("16.16", True) if size + variant == "b5g1-gn" else ("16.32", False)
    )
    assert config.precision.half_partials and not config.precision.stochastic_rounding and config.data.eight_bit_io
    assert ipu.recomputation and ipu.convolution_dithering == (f"{size}-{variant}" in ("b4-g1-gn", "b5-g1-gn", "b5-g16-gn", "b5-g16-lnpn"))
    mixup, cutmix = MIXING[size]
    is_own_partner = batch.micro_batch_size == 2  # an image rolled by two
    assert (config.augmentation.mixup_alpha, config.augmentation.cutmix_strength) == (mixup, 0.0 if is_own_partner else cutmix)
    assert (model.dropout, model.drop_path, model.norm_epsilon) == (DROPOUT[size], 0.2, 1e-3)
    expected = ("layer", True) if "lnpn" in variant else ("group", False)
    assert (model.norm, model.proxy_norm, model.norm_groups, model.proxy_norm_scale) == (*expected, 4, "folded")
    assert (model.group_size, model.expand_ratio) == ((1, 6) if "g1-" in variant else (16, 4))
    assert "lnpn" in variant or model.norm_channel_grouping == "strided"


@pytest.mark.parametrize("size", SHAPES)
def test_section_3_1_channels_and_repeats(size):
    stem, stages, top, repeats = SHAPES[size]
    with torch.device("meta"):
        network = build_model(load_preset(f"efficientnet-{size}-g16-lnpn-16ipu", {}).model, 1000)
    assert (network.conv_stem.out_channels, network.conv_head.out_channels) == (stem, top)
    assert tuple(len(stage) for stage in network.blocks) == repeats
    for stage, channels in zip(network.blocks, stages):
        for block in stage:
            projection = block.conv_pw if isinstance(block, DepthwiseSeparableConv) else block.conv_pwl
            assert projection.out_channels == channels
            assert block.se.conv_reduce.out_channels == int(block_input(block) * 0.25)
            assert block.conv_dw.groups == max(block.conv_dw.in_channels // 16, 1)
    later = [block for stage in network.blocks[1:] for block in stage]
    assert all(block.conv_dw.weight.shape[1] == 16 for block in later)  # the first stage does not expand: B3 has two groups of 20


def block_input(block):
    return block.conv_dw.in_channels if isinstance(block, DepthwiseSeparableConv) else block.conv_pw.in_channels


def test_section_3_2_recipe():
    config = load_preset("efficientnet-b3-g16-lnpn-16ipu", {})
    assert config.learning_rate == 0.046875  # 2^-14 * 768
    assert config.rmsprop_decay == 0.953125  # 1 - 2^-14 * 768
    assert (config.optimizer.optimizer, config.optimizer.momentum, config.optimizer.rmsprop_epsilon) == ("rmsprop", 0.9, 1e-3)
    assert (config.schedule.epochs, config.schedule.schedule, config.schedule.warmup_epochs) == (350, "exponential", 5.0)
    assert (config.schedule.decay_factor, config.schedule.decay_every_epochs) == (0.97, pytest.approx(350 / 146))
    assert (config.averaging.averaging, config.averaging.averaging_decay) == ("exponential", 0.97)
    assert config.augmentation.label_smoothing == 0.1 and config.model.pixel_normalisation == "mean"
    assert (config.optimizer.loss_scaling, config.optimizer.weight_decay) == (128, 1e-5)
    assert (config.augmentation.mixup_alpha, config.augmentation.cutmix_strength) == (0.2, 0.9)
    assert config.precision.precision == "16.32" and config.precision.half_partials


def test_half_resolutions_have_the_native_residue_mod_32():
    for size in FIGURE_MACS:
        native = load_preset(f"efficientnet-{size}-g16-gn-16ipu", {}).data.image_size
        half = load_preset(f"efficientnet-{size}-g16-gn-half-16ipu", {}).data.image_size
        assert native % 32 == half % 32
