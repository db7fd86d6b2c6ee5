"""configs.yml, and how presets resolve."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from config import SECTION_OF_FIELD, SECTIONS, ConfigError, load_preset, preset_names
from config.presets import build_config, read_presets
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

    def stated(entry_name):
        entry = presets[entry_name]
        parents = entry.get("extends", [])
        values = {}
        for parent in [parents] if isinstance(parents, str) else parents:
            values.update(stated(parent))
        values.update({(s, f): v for s, fields in entry.items() if s != "extends" for f, v in fields.items()})
        return values

    config = load_preset(name, {})
    values = stated(name)
    assert values
    for (section, field), value in values.items():
        used = getattr(getattr(config, section), field)
        assert (list(used) if isinstance(used, tuple) else used) == value


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
        ("p: {batch: {micro_batch_size: 1, gradient_accumulation: 1}, optimizer: {rmsprop_base_decay: 2.0}}", ["below 1"]),
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
    assert len(SECTION_OF_FIELD) == sum(len(section.model_fields) for section in SECTIONS.values())


@given(micro=st.integers(1, 64), steps=st.integers(1, 64), replicas=st.integers(1, 16))
def test_accumulation_follows_from_the_global_batch(micro, steps, replicas):
    batch = {"micro_batch_size": micro, "replicas": replicas, "global_batch_size": micro * replicas * steps}
    config = build_config("p", {"batch": batch, "optimizer": {"optimizer": "sgd"}})
    assert config.batch.accumulation_steps == steps
    assert config.learning_rate == pytest.approx(2**-14 * micro * replicas * steps)
