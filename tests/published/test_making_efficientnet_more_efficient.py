"""Figures of arXiv 2106.03640 (Masters et al.) and of its published code, each with its source."""

from __future__ import annotations

import pytest

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
# Micro batch, replicas, accumulation of configs.yml in graphcore-research.
BATCHES = {
    "efficientnet-b0-g1-gn-16ipu": (12, 8, 8),
    "efficientnet-b1-g16-lnpn-16ipu": (8, 8, 12),
    "efficientnet-b2-g16-gn-half-16ipu": (24, 4, 8),
    "efficientnet-b3-g16-gn-16ipu": (8, 4, 24),
    "efficientnet-b4-g1-gn-16ipu": (3, 4, 64),
    "efficientnet-b5-g16-lnpn-half-16ipu": (3, 4, 64),
    "efficientnet-b5-g16-gn-16ipu": (2, 4, 96),
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


@pytest.mark.parametrize("preset", BATCHES)
def test_configs_yml_batches(preset):
    batch = load_preset(preset, {}).batch
    assert (batch.micro_batch_size, batch.replicas, batch.accumulation_steps) == BATCHES[preset]
    assert batch.images_per_update == 768


def test_section_3_2_recipe():
    config = load_preset("efficientnet-b3-g16-lnpn-16ipu", {})
    assert config.learning_rate == 0.046875  # 2^-14 * 768
    assert config.rmsprop_decay == 0.953125  # 1 - 2^-14 * 768
    assert (config.optimizer.loss_scaling, config.optimizer.weight_decay) == (128, 1e-5)
    assert (config.augmentation.mixup_alpha, config.augmentation.cutmix_strength) == (0.2, 0.9)
    assert config.precision.precision == "16.32" and config.precision.half_partials


def test_half_resolutions_have_the_native_residue_mod_32():
    for size in FIGURE_MACS:
        native = load_preset(f"efficientnet-{size}-g16-gn-16ipu", {}).data.image_size
        half = load_preset(f"efficientnet-{size}-g16-gn-half-16ipu", {}).data.image_size
        assert native % 32 == half % 32
