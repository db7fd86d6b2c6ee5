"""Configs that earlier releases stored with their checkpoints."""

from __future__ import annotations

import pytest

from config import load_preset, preset_names
from config.presets import config_of_checkpoint
from config.stored import as_stored

NEW_FIELDS = ("proxy_norm_scale", "norm_channel_grouping")


def old(preset):
    """What the release before these fields wrote."""
    stored = {"preset": preset, **{name: dict(fields) for name, fields in load_preset(preset, {}).model_dump().items() if name != "preset"}}
    for field in NEW_FIELDS:
        del stored["model"][field]
    return stored


@pytest.mark.parametrize("preset", ["tiny", "efficientnet-b0-g16-lnpn-16ipu", "efficientnet-b3-g16-gn-16ipu"])
def test_an_old_config_is_what_was_computed_then(preset):
    model = config_of_checkpoint(as_stored(old(preset)), {}).model
    assert (model.proxy_norm_scale, model.norm_channel_grouping) == ("everywhere", "contiguous")
    assert config_of_checkpoint(as_stored(old(preset)), {"proxy_norm_scale": "folded"}).model.proxy_norm_scale == "folded"


def test_a_new_config_is_left_as_it_is():
    stored = load_preset("tiny", {}).model_dump()
    before = {name: dict(fields) if isinstance(fields, dict) else fields for name, fields in stored.items()}
    assert as_stored(stored) == before == stored


@pytest.mark.parametrize("preset", preset_names())
def test_presets_are_as_published(preset):
    """Folded in all; strided groups where group norm is trained as the paper and Graphcore's applications train it."""
    model = load_preset(preset, {}).model
    assert model.proxy_norm_scale == "folded"
    if model.norm == "group":
        assert model.norm_channel_grouping == "strided"
    if preset in ("tiny", "digits", "digits-half", "resnet50-pod16"):
        assert model.norm_channel_grouping == "contiguous"
