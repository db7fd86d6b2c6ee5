"""The second phase as an overlay, and configs that earlier releases stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config import ConfigError, config_of_checkpoint, differences, load_preset, may_change, plain_values, with_fields

STORED = json.loads((Path(__file__).parent.parent / "data" / "stored_configs_version_1.json").read_text(encoding="utf-8"))
HALF = "efficientnet-b0-g16-lnpn-half-16ipu"


def test_the_second_phase_is_the_first_with_what_it_states():
    first, second = load_preset(HALF, {}).phases
    assert first == load_preset(HALF, {})
    changed = {difference.field for difference in differences(with_fields(first, fine_tune_epochs=None), second)}
    assert changed == {
        "trainable_layers", "image_size", "preprocessing", "micro_batch_size", "global_batch_size", "replicas", "epochs",
        "base_learning_rate", "schedule", "averaging", "pipeline_splits",
    }  # fmt: skip


def test_a_preset_without_epochs_of_a_second_phase_has_one_phase():
    assert len(load_preset("tiny", {}).phases) == 1
    assert len(load_preset(HALF, {"fine_tune_epochs": "none"}).phases) == 1
    assert load_preset("tiny", {"fine_tune_epochs": 3}).phases[1].schedule.epochs == 3


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"fine_tune_replicas": 5}, ["fine_tune.batch", "global_batch_size 512 is not a multiple of micro_batch_size 8 x replicas 5"]),
        ({"fine_tune_micro_batch_size": 0}, ["fine_tune.batch.micro_batch_size", "greater than or equal to 1", "0"]),
        ({"fine_tune_micro_batch_size": 1}, ["fine_tune", "too small for mixup"]),
        ({"fine_tune_norm": "group"}, ["unknown field 'fine_tune_norm'"]),
        ({"fine_tune_schedule": "cosin"}, ["fine_tune.schedule.schedule", "'cosine'", "'cosin'"]),
        ({"fine_tune_dropout": 1.5}, ["fine_tune.model.dropout", "less than 1", "1.5"]),
        ({"fine_tune_rmsprop_base_decay": 0.25}, ["fine_tune", "x global batch 512 must be below 1"]),
        ({"fine_tune_available_memory_proportion": (0.1, 0.2)}, ["fine_tune.ipu", "takes 1 or 1 values"]),
        ({"fine_tune_seed": 3}, ["unknown field 'fine_tune_seed'"]),
        ({"fine_tune_validation_image_size": 4}, ["fine_tune.validation.image_size", "greater than or equal to 8"]),
    ],
)
def test_a_mistake_in_the_second_phase_shows_when_the_config_is_loaded(fields, fragments):
    with pytest.raises(ConfigError) as raised:
        load_preset(HALF, fields)
    assert all(fragment in str(raised.value) for fragment in fragments), str(raised.value)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("fine_tune: {model: {norm: group}}", ["unknown field 'fine_tune.model.norm'"]),
        ("fine_tune: {batch: {micro_batch_sise: 4}}", ["'fine_tune.batch.micro_batch_sise'", "did you mean 'micro_batch_size'"]),
        ("fine_tune: {bach: {micro_batch_size: 4}}", ["unknown section 'fine_tune.bach'", "did you mean 'batch'"]),
        ("fine_tune: {run: {seed: 4}}", ["unknown section 'fine_tune.run'"]),
        ("fine_tune: {batch: {micro_batch_size: four}}", ["fine_tune.batch.micro_batch_size", "integer", "'four'"]),
        ("fine_tune: {batch: 4}", ["section 'fine_tune.batch' must hold fields, got 4"]),
        ("fine_tune: 4", ["fine_tune must hold sections", "got 4"]),
        ("fine_tune: {fine_tune_epochs: 2}", ["unknown section 'fine_tune.fine_tune_epochs'"]),
    ],
)
def test_a_mistake_in_a_presets_second_phase_names_it_though_it_has_no_epochs(tmp_path, text, fragments):
    path = tmp_path / "presets.yml"
    path.write_text(f"p:\n  batch: {{gradient_accumulation: 1}}\n  {text}\n")
    with pytest.raises(ConfigError) as raised:
        load_preset("p", {}, path)
    assert all(fragment in str(raised.value) for fragment in fragments), str(raised.value)


def test_a_flag_of_a_second_phase_needs_one():
    with pytest.raises(ConfigError, match="fine_tune_replicas belongs to a second phase, and there is none: give fine_tune_epochs"):
        load_preset("tiny", {"fine_tune_replicas": 2})
    assert len(load_preset("tiny", {"fine_tune_epochs": "none"}).phases) == 1


def test_alternatives_are_those_of_the_second_phase_too():
    """digits states gradient_accumulation, its second phase the global batch, a flag the accumulation again: 8 x 16 images x 2."""
    assert load_preset("digits", {"fine_tune_epochs": 1}).phases[1].batch.images_per_update == 512
    batch = load_preset("digits", {"fine_tune_epochs": 1, "fine_tune_gradient_accumulation": 2}).phases[1].batch
    assert (batch.images_per_update, batch.global_batch_size) == (8 * 16 * 2, None)


def test_a_second_phase_says_how_it_validates():
    first, second = load_preset("digits-half", {"validation_image_size": 20, "fine_tune_validation_replicas": 1}).phases
    assert (first.validation_image_size, second.validation_image_size) == (20, 24)  # none there: as in its training
    assert (first.validation_replicas, second.validation_replicas) == (2, 1)
    assert second.validation_micro_batch_size == 30


# ---- what is kept with runs


@pytest.mark.parametrize("preset", ["tiny", "digits-half", HALF, "efficientnet-b5-g1-gn-16ipu", "resnet50-pod16"])
def test_a_config_is_the_same_after_it_was_stored(preset):
    config = load_preset(preset, {"data_path": "x"})
    for phase in config.phases:
        again = config_of_checkpoint(json.loads(json.dumps(plain_values(phase))), {})
        assert again == phase and again.phases == phase.phases


def test_a_run_of_the_first_release_resumes_with_todays_preset():
    now = load_preset("digits-half", {"validation_image_size": 20, "available_memory_proportion": (0.2, 0.3), "output": "runs/h",
        "fine_tune_available_memory_proportion": "none", "proxy_norm_scale": "everywhere"})  # fmt: skip
    assert differences(config_of_checkpoint(STORED["two-phases"], {}), now) == []
    assert (
        differences(
            config_of_checkpoint(STORED["second-phase"], {}), load_preset("digits-half", {"proxy_norm_scale": "everywhere"}).phases[1]
        )
        == []
    )


def test_a_config_of_the_first_release_has_its_values_in_todays_places():
    first, second = config_of_checkpoint(STORED["two-phases"], {}).phases
    assert (first.validation.image_size, first.validation.micro_batch_size, first.validation_replicas) == (20, 30, 2)
    assert (first.batch.gradient_accumulation, first.batch.global_batch_size) == (3, None)
    assert (first.run.output, first.run.resume, first.run.checkpoint_every_steps, first.data.data_path) == ("runs/h", None, None, None)
    assert second == with_fields(load_preset("digits-half", {"proxy_norm_scale": "everywhere"}).phases[1], output="runs/h")
    paper = config_of_checkpoint(STORED["paper"], {"fine_tune_epochs": 4}).phases[1]
    assert (paper.schedule.epochs, paper.model.trainable_layers, paper.learning_rate) == (4, ("classifier",), 0.25)


def test_zeros_and_empty_texts_of_the_first_release_are_none():
    config = config_of_checkpoint(STORED["one-phase"], {})
    assert len(config.phases) == 1
    assert (config.batch.images_per_update, config.batch.gradient_accumulation) == (18, None)
    assert (config.validation_micro_batch_size, config.validation.image_size, config.ipu.stages) == (5, None, 1)
    assert config.model.trainable_layers is config.ipu.available_memory_proportion is None


def test_which_fields_a_resumed_run_may_change():
    free = "data_path num_workers machine output resume fine_tune_from allow_change validate_every_epochs checkpoint_every_epochs"
    free = [*free.split(), "checkpoint_every_steps", "log_every_steps", "wandb", "wandb_project"]
    before, after = load_preset("tiny", {}), load_preset("tiny", {"epochs": 5, "machine": "pod64", "fine_tune_epochs": 2})
    assert [str(d) for d in differences(before, after)] == [
        "epochs was 2, is 5", "machine was 'pod16', is 'pod64'", "fine_tune_epochs was None, is 2",
    ]  # fmt: skip
    assert all(may_change(field) for field in free)
    assert not any(may_change(field) for field in ("epochs", "seed", "validation_replicas", "fine_tune_epochs", "pipeline_splits"))


def test_a_second_phase_is_compared_field_by_field():
    before = load_preset(HALF, {})
    (found,) = differences(before, load_preset(HALF, {"fine_tune_epochs": 4}))
    assert (found.field, found.before, found.after) == ("fine_tune_epochs", 2, 4)
    (found,) = differences(before, load_preset(HALF, {"fine_tune_dropout": 0.1}))
    assert str(found) == "fine_tune_dropout was 'as in the first phase', is 0.1"


def test_with_fields_checks_the_whole():
    config = load_preset("tiny", {})
    assert with_fields(config, replicas=1).batch.images_per_update == 9  # 3 images x 3 micro batches
    assert with_fields(config, pipeline_splits=("blocks.1.0", "blocks.3.0")).ipu.stages == 3
    with pytest.raises(ConfigError, match="unknown field 'replica'; did you mean 'replicas'"):
        with_fields(config, replica=1)
    with pytest.raises(ConfigError, match="batch.replicas"):
        with_fields(config, replicas=-1)
