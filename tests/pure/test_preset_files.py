"""Files of presets as users write them: any YAML is read rightly or refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from config import OVERLAY, PLACES, SECTIONS, ConfigError, load_preset
from config.errors import MAX_SHOWN, shown
from config.presets import build_config
from config.reading import read_presets

MINIMAL = "batch: {gradient_accumulation: 1}"


def written(folder, data):
    path = folder / "presets.yml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        (b"p: {batch: {gradient_accumulation: 1}} # \xff", "is not UTF-8 text: byte 0xff at position 41"),
        (b"\xff\xfep\x00:\x00", "is not UTF-8 text"),
        ("[1, 2]", "must hold presets by name, got [1, 2]"),
        ("just text", "must hold presets by name, got 'just text'"),
        ("3: {}", "line 1: a key must be text, got 3"),
        ("p: {true: 3}", "a key must be text, got True"),
        ("p: {batch: {[1, 2]: 3}}", "line 1: a key must be text, got [1, 2]"),
        ("p:\n  batch: {null: 3}", "line 2: a key must be text, got None"),
        ("p: {extends: 3}", "extends takes the name of a preset, or a list of names, got 3"),
        ("p: {extends: {a: b}}", "extends takes the name of a preset, or a list of names, got {'a': 'b'}"),
        ("p: {extends: [[p]]}", "extends takes the name of a preset, or a list of names, got [['p']]"),
        ("p: {extends: [q, 3]}", "extends takes the name"),
        ("p: {extends: [p]}", "extends itself: p -> p"),
        ("q: &q {batch: {replicas: 2}}\np:\n  <<: *q", "line 3: << would replace whole sections: write extends: NAME"),
        ("p: &p [*p]", "recursive"),
        ("p: {model: &m {norm: *m}}", "recursive"),
        ("p: {batch: {micro_batch_size: " + "9" * 5000 + "}}", "presets.yml"),
        ("p: {batch: {micro_batch_size: 0x" + "f" * 5000 + "}}", "batch.micro_batch_size"),
        ("p: {batch: {gradient_accumulation: 1}, schedule: {epochs: 2020-13-45}}", "presets.yml is not valid YAML"),
        ("p: {batch: {gradient_accumulation: 1}, schedule: {epochs: 2020-12-24}}", "schedule.epochs"),
        ("p: " + "[" * 5000, "presets.yml"),
        ("p: {a: !!python/object/apply:os.system [ls]}", "not valid YAML"),
        ("p: !!binary aGVsbG8=", "must hold sections"),
        ("p: {batch: [1, 2]}", "section 'batch' must hold fields, got [1, 2]"),
        ("p: {model: {trainable_layers: {a: 1}}, " + MINIMAL + "}", "model.trainable_layers"),
        ("p: {data: {data_path: \"a\\0b\"}, " + MINIMAL + "}", "data.data_path"),
        ("p: {ipu: {pipeline_splits: blocks.2.1}, " + MINIMAL + "}", "ipu.pipeline_splits"),
        ("p: {optimizer: {adamw_betas: [0.9]}, " + MINIMAL + "}", "optimizer.adamw_betas"),
        ("p: {schedule: {warmup_epochs: .inf}, " + MINIMAL + "}", "schedule.warmup_epochs"),
        ("p: {augmentation: {mixup_alpha: .nan}, " + MINIMAL + "}", "augmentation.mixup_alpha"),
        ("p: {model: {norm: off}, " + MINIMAL + "}", "model.norm"),
        ("p: {model: {norm: " + "x" * 10_000 + "}, " + MINIMAL + "}", "xxxxxx"),
        ("p: {" + "x" * 1000 + ": {}}", "unknown section"),
        ("p: {model: {" + "x" * 1000 + ": 1}, " + MINIMAL + "}", "unknown field"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_right_is_one_short_message(tmp_path, data, fragment):
    with pytest.raises(ConfigError) as raised:
        load_preset("p", {}, written(tmp_path, data))
    message = str(raised.value).replace(str(tmp_path), "")
    assert fragment in message, message
    assert "\n" not in message and len(message) < 1000


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="none.yml cannot be read: No such file or directory"):
        load_preset("p", {}, tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_preset("p", {}, tmp_path)


def test_aliases_are_read_as_values(tmp_path):
    path = written(tmp_path, "q: &q {batch: &b {gradient_accumulation: 2}}\np: {batch: *b}\nr: *q")
    assert load_preset("p", {}, path).batch == load_preset("r", {}, path).batch


@pytest.mark.slow
def test_twenty_thousand_keys_are_read(tmp_path):
    """Each key was compared with all before it, 2 x 10^8 times: 12 s."""
    path = written(tmp_path, "\n".join(f"k{index}: {{}}" for index in range(20_000)))
    assert len(read_presets(path)) == 20_000


def test_shown_values_are_short():
    for value in (10**6000, "x" * 1000, ("y",) * 1000, {"k": "z" * 1000}, b"\xff" * 500, float("inf"), None, "a\nb"):
        assert len(shown(value)) <= MAX_SHOWN and "\n" not in shown(value)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400), st.dates())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5
)


@pytest.mark.slow
@given(field=st.sampled_from(list(PLACES)), value=VALUES)
def test_any_value_of_any_field_is_used_as_it_is_or_refused_by_name(field, value):
    try:
        config = load_preset("digits-half", {field: value})
    except ConfigError as error:
        message = str(error)
        assert "digits-half" in message and "\n" not in message and len(message) < 2000
        return
    place = PLACES[field]
    phase = config.phases[-1] if place[0] == OVERLAY else config
    used = getattr(getattr(phase, place[-2]), place[-1]) if len(config.phases) == 2 or place[0] != OVERLAY else None
    stated = tuple(value) if isinstance(value, list) else value
    assert used == stated or used in (None, ())


NUMBERS = [field for field, place in PLACES.items() if SECTIONS[place[-2]].model_fields[place[-1]].json_schema_extra["unit"]]


NONSENSE = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan"), "huge": 10**400, "1e300": 1e300, "-1.0": -1.0, "-1": -1}


@pytest.mark.parametrize("kind", NONSENSE)
def test_numbers_without_a_meaning_are_refused_in_every_field(kind):
    for field in NUMBERS:
        info = SECTIONS[PLACES[field][-2]].model_fields[PLACES[field][-1]]
        values = (NONSENSE[kind],) * 2 if "Tuple" in str(info.annotation) else NONSENSE[kind]
        with pytest.raises(ConfigError, match=PLACES[field][-1]):
            load_preset("digits-half", {field: values})


def test_every_number_has_a_unit():
    for field, place in PLACES.items():
        info = SECTIONS[place[-2]].model_fields[place[-1]]
        text = str(info.annotation)
        is_number = "Literal" not in text and ("int" in text or "float" in text)
        assert is_number == bool(info.json_schema_extra["unit"]), field


@pytest.mark.slow
@given(text=st.text(max_size=80) | st.dictionaries(st.text(max_size=4), VALUES, max_size=3).map(str))
def test_any_text_is_presets_or_refused(tmp_path_factory, text):
    path = written(tmp_path_factory.getbasetemp(), text.encode("utf-8", "surrogatepass"))
    try:
        read_presets(path)
    except ConfigError as error:
        assert str(error).startswith((str(path), "preset")) and "\n" not in str(error)


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from([*SECTIONS, OVERLAY]), st.dictionaries(st.sampled_from(list(PLACES)), VALUES, max_size=2), max_size=3)
)
def test_any_sections_are_a_config_or_refused(sections):
    try:
        build_config("p", sections)
    except ConfigError as error:
        assert "'p'" in str(error) and "\n" not in str(error) and len(str(error)) < 5000


def test_todays_presets_are_read():
    assert set(read_presets()) > {"tiny", "digits", "_second_phase"}
