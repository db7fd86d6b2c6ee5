"""configs.yml, and how presets resolve."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, strategies as st

from config import MACHINES, OVERLAY, PLACES, SECTIONS, ConfigError, load_preset, preset_names
from config.presets import build_config
from config.reading import read_presets
from ipu_model.cost import hardware
from models.architectures import SIZES, block_paths

PAPER = [
    f"efficientnet-b{size}-{variant}{half}-16ipu"
    for size in range(6)
    for variant in ("g1-gn", "g16-gn", "g16-lnpn")
    for half in ("", "-half")
    if not (variant == "g1-gn" and half)
]


def write(tmp_path, text):
    path = tmp_path / "presets.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves(name):
    config = load_preset(name, {})
    assert config.preset == name
    batch = config.batch
    assert batch.images_per_update == batch.micro_batch_size * batch.replicas * batch.accumulation_steps
    # A training pipeline of n stages holds 2n - 1 micro batches.
    stages = len(config.ipu.pipeline_splits) + 1
    assert batch.accumulation_steps >= (2 * stages - 1 if stages > 1 else 1)


@pytest.mark.parametrize("name", preset_names())
def test_every_stated_value_is_in_the_config(name):
    presets = read_presets()

    def leaves(values, place=()):
        for key, value in values.items():
            yield from leaves(value, (*place, key)) if isinstance(value, dict) else [((*place, key), value)]

    def stated(entry_name):
        entry = presets[entry_name]
        values = {}
        for parent in entry.get("extends", []):
            values.update(stated(parent))
        values.update(dict(leaves({section: fields for section, fields in entry.items() if section != "extends"})))
        return values

    values = stated(name)
    first, second = load_preset(name, {} if (OVERLAY, "schedule", "epochs") in values else {"fine_tune_epochs": 1}).phases
    assert values
    for place, value in values.items():
        section, field = place[-2:]
        used = getattr(getattr(second if place[0] == OVERLAY else first, section), field)
        is_none = value == "none" and used in (None, ())
        assert is_none or (list(used) if isinstance(used, tuple) else used) == value


@pytest.mark.parametrize("name", [n for n in preset_names() if "efficientnet" in n and "pod" not in n])
def test_pipeline_splits_are_blocks_of_the_network(name):
    config = load_preset(name, {})
    paths = block_paths(SIZES[config.model.architecture])
    assert set(config.ipu.pipeline_splits) <= set(paths)
    assert list(config.ipu.pipeline_splits) == sorted(config.ipu.pipeline_splits, key=paths.index)


def test_the_papers_thirty_are_there():
    assert len(PAPER) == 30
    assert set(PAPER) <= set(preset_names())
    assert all(load_preset(name, {}).ipus == 16 for name in PAPER)


def test_a_flag_wins_over_the_preset_and_the_preset_over_the_default():
    assert load_preset("tiny", {}).schedule.epochs == 2  # stated there; the default is 350
    assert load_preset("tiny", {"epochs": 5}).schedule.epochs == 5
    assert load_preset("tiny", {}).optimizer.momentum == 0.9  # the default


def test_sections_merge_and_later_parents_win(tmp_path):
    path = write(
        tmp_path,
        "a: {batch: {micro_batch_size: 4, gradient_accumulation: 2}}\n"
        "b: {batch: {micro_batch_size: 8}}\n"
        "c: {extends: [a, b], schedule: {epochs: 3}}\n",
    )
    config = load_preset("c", {}, path)
    assert (config.batch.micro_batch_size, config.batch.gradient_accumulation, config.schedule.epochs) == (8, 2, 3)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("p: {batch: {micro_batch_sise: 4}}", ["batch.micro_batch_sise", "did you mean 'micro_batch_size'"]),
        ("p: {bach: {micro_batch_size: 4}}", ["unknown section 'bach'", "did you mean 'batch'"]),
        ("p: {batch: {micro_batch_size: four, gradient_accumulation: 1}}", ["batch.micro_batch_size", "integer", "'four'"]),
        ("p: {batch: {micro_batch_size: true, gradient_accumulation: 1}}", ["batch.micro_batch_size", "True"]),
        ("p: {batch: {gradient_accumulation: 1}, optimizer: {weight_decay: 1e-5}}", ["weight_decay", "'1e-5'", "1e-05", "point"]),
        ("p: {model: {norm: leyer}, batch: {gradient_accumulation: 1}}", ["model.norm", "'batch'", "'leyer'"]),
        ("p: {batch: {micro_batch_size: 4}}", ["gradient_accumulation or global_batch_size"]),
        ("p: {batch: {micro_batch_size: 4, global_batch_size: 10}}", ["10", "multiple", "8, 12"]),
        ("p: {batch: {micro_batch_size: 4, global_batch_size: 16, gradient_accumulation: 3}}", ["16", "12", "only one"]),
        ("p: {batch: {gradient_accumulation: 1, global_batch_size: none}}\nq: 3", ["'q'", "must hold sections"]),
        ("p: {batch: {gradient_accumulation: none}}", ["gradient_accumulation or global_batch_size"]),
        ("p: {extends: q}", ["extends the unknown preset 'q'"]),
        ("p: {extends: q}\nq: {extends: p}", ["extends itself", "p -> q -> p"]),
        ("p: {batch: {}}\np: {batch: {}}", ["'p' is repeated", "line 2"]),
        ("p: {batch: {micro_batch_size: 1, micro_batch_size: 2}}", ["'micro_batch_size' is repeated"]),
        ("p: [", ["not valid YAML"]),
        ("p: 3", ["must hold sections", "3"]),
        ("p: {batch: 3}", ["section 'batch' must hold fields"]),
        ("p: {model: {norm: batch, proxy_norm: true}, batch: {gradient_accumulation: 1}}", ["proxy_norm needs norm layer or group"]),
        ("p: {batch: {micro_batch_size: 2, gradient_accumulation: 1}, augmentation: {cutmix_strength: 0.8}}", ["too small", "at least 3"]),
        ("p: {batch: {micro_batch_size: 1, gradient_accumulation: 1}, augmentation: {mixup_alpha: 0.1}}", ["too small", "at least 2"]),
        ("p: {batch: {micro_batch_size: 2, gradient_accumulation: 1}, optimizer: {rmsprop_base_decay: 0.5}}", ["below 1"]),
    ],
)
def test_a_mistake_is_one_message_that_names_it(tmp_path, text, fragments):
    with pytest.raises(ConfigError) as raised:
        load_preset("p", {}, write(tmp_path, text))
    assert all(fragment in str(raised.value) for fragment in fragments), str(raised.value)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_preset("digit", {})
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        load_preset("digits", {"epoch": 3})
    with pytest.raises(ConfigError, match="unknown preset '_paper'"):
        load_preset("_paper", {})


def test_a_config_is_frozen():
    config = load_preset("tiny", {})
    with pytest.raises(ValueError, match="frozen"):
        config.batch.micro_batch_size = 7


def test_fields_have_one_section_each():
    """Names of flags are unique, also with validation- and fine-tune- before them."""
    own = [section.flag_prefix + field for section in SECTIONS.values() for field in section.model_fields]
    assert len(own) == len(set(own))
    assert [field for field, place in PLACES.items() if place[0] != OVERLAY] == own
    assert not {field for field, place in PLACES.items() if place[0] == OVERLAY} & set(own)


@given(micro=st.integers(1, 64), steps=st.integers(1, 64), replicas=st.integers(1, 16))
def test_accumulation_follows_from_the_global_batch(micro, steps, replicas):
    batch = {"micro_batch_size": micro, "replicas": replicas, "global_batch_size": micro * replicas * steps}
    config = build_config("p", {"batch": batch, "optimizer": {"optimizer": "sgd"}})
    assert config.batch.accumulation_steps == steps
    assert config.learning_rate == pytest.approx(2**-14 * micro * replicas * steps)


# ---- alternatives, and none


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [  # micro batch 2, one replica: 2 images for each step of accumulation
        ("p: {extends: q, batch: {global_batch_size: 12}}\nq: {batch: {gradient_accumulation: 3}}", {}, (12, 6)),
        ("p: {extends: q, batch: {gradient_accumulation: 3}}\nq: {batch: {global_batch_size: 12}}", {}, (6, 3)),
        ("p: {extends: [q, r]}\nq: {batch: {global_batch_size: 12}}\nr: {batch: {gradient_accumulation: 3}}", {}, (6, 3)),
        ("p: {batch: {global_batch_size: 12}}", {"gradient_accumulation": 5}, (10, 5)),
        ("p: {batch: {gradient_accumulation: 5}}", {"global_batch_size": 8}, (8, 4)),
        ("p: {batch: {gradient_accumulation: 5}}", {"global_batch_size": "none"}, (10, 5)),
        ("p: {batch: {gradient_accumulation: 5}}", {"global_batch_size": 8, "gradient_accumulation": 4}, (8, 4)),
    ],
)
def test_of_two_alternatives_the_one_stated_later_wins(tmp_path, text, overrides, expected):
    batch = load_preset("p", {"micro_batch_size": 2, **overrides}, write(tmp_path, text)).batch
    assert (batch.images_per_update, batch.accumulation_steps) == expected


def test_two_alternatives_stated_in_one_place_have_to_agree(tmp_path):
    with pytest.raises(ConfigError, match="global_batch_size 8 is not .* state only one of the two"):
        load_preset("p", {"gradient_accumulation": 5, "global_batch_size": 8}, write(tmp_path, "p: {batch: {micro_batch_size: 2}}"))


OPTIONAL = [field for field, place in PLACES.items() if type(None) in get_args(SECTIONS[place[-2]].model_fields[place[-1]].annotation)]


@pytest.mark.parametrize("none", ["none", None, ("none",)])
@pytest.mark.parametrize("field", OPTIONAL)
def test_none_says_none_in_every_optional_field(field, none):
    others = {"fine_tune_epochs": 1} if field.startswith(OVERLAY) and field != "fine_tune_from" else {}
    if field.endswith("gradient_accumulation"):
        others[field.replace("gradient_accumulation", "global_batch_size")] = 512
    config = load_preset("digits", {field: none, **others})
    section, name = PLACES[field][-2:]
    assert getattr(getattr(config.phases[-1] if others.get("fine_tune_epochs") else config, section), name) is None


def test_the_optional_fields_are_those_that_had_to_be_zero_or_empty():
    fields = """trainable_layers dataset data_path validation_share bounding_boxes gradient_accumulation global_batch_size
            validation_image_size validation_micro_batch_size validation_replicas available_memory_proportion output resume fine_tune_from
            validate_every_epochs checkpoint_every_epochs checkpoint_every_steps"""
    assert [field for field in OPTIONAL if PLACES[field][0] != OVERLAY] == fields.split()


@pytest.mark.parametrize("field", OPTIONAL)
@pytest.mark.parametrize("value", [0, "", ()])
def test_no_zero_or_empty_value_means_none(field, value):
    with pytest.raises(ConfigError, match=PLACES[field][-1]):
        load_preset("digits-half", {field: value})


def test_none_in_a_preset_and_in_fields_of_several_values(tmp_path):
    text = "p: {extends: q, ipu: {pipeline_splits: none, available_memory_proportion: none}, schedule: {decay_milestones_epochs: none}}\n"
    parent = "q: {batch: {gradient_accumulation: 1}, ipu: {pipeline_splits: [a], available_memory_proportion: [0.2]}}"
    config = load_preset("p", {}, write(tmp_path, text + parent))
    assert (config.ipu.pipeline_splits, config.ipu.stages, config.ipu.available_memory_proportion) == ((), 1, None)
    assert config.schedule.decay_milestones_epochs == ()
    assert load_preset("digits", {"pipeline_splits": ("none",)}).ipu.stages == 1


def test_none_is_a_value_of_its_own_where_a_field_has_it():
    config = load_preset("digits", {"norm": "none", "proxy_norm": False, "averaging": "none", "preprocessing": "none"})
    assert (config.model.norm, config.averaging.averaging, config.data.preprocessing) == ("none", "none", "none")


@pytest.mark.parametrize("field", ["epochs", "norm_groups", "adamw_betas", "dropout", "seed", "architecture", "wandb"])
def test_none_is_refused_where_a_value_is_needed(field):
    with pytest.raises(ConfigError, match=field):
        load_preset("digits", {field: "none"})


# ---- validation


def test_validation_has_its_own_size_micro_batch_and_replicas():
    config = load_preset("tiny", {})
    assert (config.validation_image_size, config.validation_micro_batch_size, config.validation_replicas) == (8, 3, 2)  # of training
    stated = load_preset("tiny", {"validation_image_size": 16, "validation_micro_batch_size": 5, "validation_replicas": 3})
    assert (stated.validation_image_size, stated.validation_micro_batch_size, stated.validation_replicas) == (16, 5, 3)
    assert (stated.data, stated.batch) == (config.data, config.batch)  # 3 replicas do not divide a training batch of 18


def test_machines_are_those_of_the_cost_model():
    assert tuple(hardware.MACHINES) == MACHINES
