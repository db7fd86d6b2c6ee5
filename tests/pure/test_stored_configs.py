"""Configs that earlier releases stored with their checkpoints."""

from __future__ import annotations

import pytest

from config import config_of_checkpoint, load_preset, plain_values, preset_names

NEW_FIELDS = ("proxy_norm_scale", "norm_channel_grouping", "pixel_normalisation")


def old(preset):
    """What the release before these fields wrote."""
    stored = plain_values(load_preset(preset, {}))
    for field in NEW_FIELDS:
        del stored["model"][field]
    return stored


@pytest.mark.parametrize("preset", ["tiny", "efficientnet-b0-g16-lnpn-16ipu", "efficientnet-b3-g16-gn-16ipu"])
def test_an_old_config_is_what_was_computed_then(preset):
    model = config_of_checkpoint(old(preset), {}).model
    assert [getattr(model, field) for field in NEW_FIELDS] == ["everywhere", "contiguous", "mean-and-deviation"]
    assert config_of_checkpoint(old(preset), {"proxy_norm_scale": "folded"}).model.proxy_norm_scale == "folded"


def test_a_new_config_is_left_as_it_is():
    config = load_preset("tiny", {})
    stored = plain_values(config)
    assert config_of_checkpoint(stored, {}) == config
    assert stored == plain_values(config)


@pytest.mark.parametrize("preset", preset_names())
def test_presets_are_as_published(preset):
    """Folded in all; strided groups where group norm is trained as the paper and Graphcore's applications train it."""
    model = load_preset(preset, {}).model
    assert model.proxy_norm_scale == "folded"
    if model.norm == "group":
        assert model.norm_channel_grouping == "strided"
    if preset in ("tiny", "digits", "digits-half", "resnet50-pod16"):
        assert model.norm_channel_grouping == "contiguous"
