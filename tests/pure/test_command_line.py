"""Flags of train.py and validate.py."""

from __future__ import annotations

import contextlib
import io
from typing import get_args, get_origin

import pytest
from hypothesis import given, strategies as st
from typing_extensions import Literal

from cli import describe, parse_estimate_arguments, parse_training_arguments, parse_validation_arguments
from config import OVERLAY, PLACES, SECTIONS, load_preset, preset_names


def test_every_field_is_a_flag_that_reaches_the_config(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_training_arguments(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all("--" + field.replace("_", "-") in text for field in PLACES)


@pytest.mark.parametrize(
    ("arguments", "section", "field", "value"),
    [
        (["--micro-batch-size", "5"], "batch", "micro_batch_size", 5),
        (["--no-proxy-norm"], "model", "proxy_norm", False),
        (["--proxy-norm"], "model", "proxy_norm", True),
        (["--norm", "group"], "model", "norm", "group"),
        (["--base-learning-rate", "1e-3"], "schedule", "base_learning_rate", 1e-3),
        (["--pipeline-splits"], "ipu", "pipeline_splits", ()),
        (["--pipeline-splits", "blocks.2.0", "blocks.4.0"], "ipu", "pipeline_splits", ("blocks.2.0", "blocks.4.0")),
        (["--adamw-betas", "0.8", "0.9"], "optimizer", "adamw_betas", (0.8, 0.9)),
        (["--pipeline-splits", "none"], "ipu", "pipeline_splits", ()),
        (["--available-memory-proportion", "none"], "ipu", "available_memory_proportion", None),
        (["--trainable-layers", "none"], "model", "trainable_layers", None),
        (["--validate-every-epochs", "none"], "run", "validate_every_epochs", None),
        (["--data-path", "none"], "data", "data_path", None),
        (["--validation-replicas", "3"], "validation", "replicas", 3),
        (["--validation-image-size", "none"], "validation", "image_size", None),
        (["--machine", "bow-pod64"], "ipu", "machine", "bow-pod64"),
    ],
)
def test_a_flag_reaches_its_field(arguments, section, field, value):
    parsed = parse_training_arguments(["--config", "digits", *arguments])
    config, is_dry_run = parsed.config, parsed.is_dry_run
    assert getattr(getattr(config, section), field) == value
    assert not is_dry_run


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--config", "digit"], "did you mean 'digits'"),
        (["--micro-batch-siz", "4"], "did you mean '--micro-batch-size'"),
        (["--micro-batch-size", "x"], "expected a whole number, got 'x'"),
        (["--norm", "leyer"], "'layer'"),
        (["--epochs", "0"], "greater than or equal to 1"),
        (["--epochs", "none"], "schedule.epochs"),
        (["--epochs", "9" * 5000], "got '999999"),
        (["--warmup-epochs", "inf"], "finite number"),
        (["--mixup-alpha", "nan"], "finite number"),
        (["--pipeline-splits", ""], "pipeline_splits"),
        (["--fine-tune-replica", "3"], "did you mean '--fine-tune-replicas'"),
        (["--fine-tune-norm", "group"], "unknown argument"),
        (["--config", "digits-half", "--fine-tune-replicas", "5"], "fine_tune.batch: global_batch_size 96 is not a multiple"),
        (["--fine-tune-replicas", "5"], "there is none: give fine_tune_epochs"),
        (["--allow-change", "epoch"], "did you mean 'epochs'"),
        (["--x\ny"], "unknown argument"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, fragment):
    with pytest.raises(SystemExit) as stopped:
        parse_training_arguments(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert fragment in error
    assert error.count("\n") == 1


def test_list_configs_prints_every_preset(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_training_arguments(["--list-configs"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.split() == preset_names()


def test_description_shows_every_field_and_derived_values():
    config = load_preset("tiny", {})
    text = "\n".join(describe(config, {"global_batch_size": config.batch.images_per_update}))
    assert all(f"  {place[-1]}: " in text for place in PLACES.values() if place[0] != OVERLAY)
    assert "  global_batch_size: 18" in text  # 3 images x 2 replicas x 3 micro batches


def test_validation_takes_only_its_own_fields():
    flags = ["--validation-image-size", "24", "--validation-micro-batch-size", "none", "--validation-replicas", "3"]
    parsed = parse_validation_arguments(["--checkpoint", "run", *flags])
    assert parsed.overrides == {"validation_image_size": 24, "validation_micro_batch_size": "none", "validation_replicas": 3}
    assert parse_validation_arguments(["--checkpoint", "run", "--replicas", "3"]).overrides == {"validation_replicas": 3}
    with pytest.raises(SystemExit):
        parse_validation_arguments(["--checkpoint", "run", "--epochs", "3"])


SAMPLES = {int: ["3"], float: ["0.25"], str: ["abc"]}  # a value that every field of the type takes, with exceptions


def sample(field):
    """What to type for a field, so that its value is not the default."""
    info = SECTIONS[PLACES[field][-2]].model_fields[PLACES[field][-1]]
    kinds = [info.annotation, *get_args(info.annotation)]
    if bool in kinds:
        return None
    literals = [kind for kind in kinds if get_origin(kind) is Literal]
    if literals:
        return [next(name for name in reversed(get_args(literals[0])) if name != info.default)]
    special = {"image_size": ["8"], "adamw_betas": ["0.5", "0.25"], "allow_change": ["epochs"], "global_batch_size": ["384"]}
    text = str(info.annotation)
    return special.get(PLACES[field][-1]) or SAMPLES[int if "int" in text else float if "float" in text else str]


@pytest.mark.parametrize("field", PLACES)
def test_every_flag_reaches_its_field(field):
    place, flag, typed = PLACES[field], "--" + field.replace("_", "-"), sample(field)
    base = ["--config", "digits", "--no-proxy-norm", "--fine-tune-epochs", "1", "--mixup-alpha", "0", "--optimizer", "adamw"]
    if typed is None:
        default = SECTIONS[place[-2]].model_fields[place[-1]].default
        negative = f"--fine-tune-no-{flag[len('--fine-tune-') :]}" if place[0] == OVERLAY else f"--no-{flag[2:]}"
        needed = ["--norm", "group"] if field == "proxy_norm" else []
        arguments, expected = [*base, *needed, negative if default else flag], not default
    else:
        arguments = [*base, flag, *typed]
        expected = None
    if field in ("micro_batch_size", "replicas"):
        arguments += ["--gradient-accumulation", "3"]
    if place[0] == OVERLAY and place[-1] in ("micro_batch_size", "replicas"):
        arguments += ["--fine-tune-gradient-accumulation", "3"]
    config = parse_training_arguments(arguments).config
    value = getattr(getattr(config.phases[1] if place[0] == OVERLAY else config, place[-2]), place[-1])
    if typed is None:
        assert value == expected
    else:
        assert [str(item) for item in (value if isinstance(value, tuple) else [value])] == typed


def help_text(capsys):
    with pytest.raises(SystemExit):
        parse_training_arguments(["--help"])
    return capsys.readouterr().out


def test_help_says_unit_and_default_of_every_field(capsys):
    own = " ".join(help_text(capsys).split("\nfine_tune:")[0].split())
    for field, place in PLACES.items():
        if place[0] != OVERLAY:
            info = SECTIONS[place[-2]].model_fields[place[-1]]
            entry = own[own.rindex(f" --{field.replace('_', '-')} ") :]
            assert "(default " in entry[:500], field
            if any(kind in str(info.annotation) for kind in ("int", "float")) and "Literal" not in str(info.annotation):
                unit = info.json_schema_extra["unit"].upper().replace(" ", "_")
                assert entry[1:].split(" ", 1)[1].lstrip("[").startswith(unit), field


def test_the_groups_of_help_are_the_sections(capsys):
    lines = help_text(capsys).splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and line[:-1] in (*SECTIONS, OVERLAY)] == [*SECTIONS, OVERLAY]


def test_an_estimate_of_the_second_phase_and_of_any_machine():
    parsed = parse_estimate_arguments(["grouped"], ["--config", "digits-half", "--fine-tuning", "--machine", "pod64"])
    assert (parsed.config.data.image_size, parsed.config.ipu.machine) == (24, "pod64")


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from([*PLACES, "config"]), st.text(max_size=6)), max_size=3))
def test_whatever_is_typed_is_right_or_one_line_and_exit_code_2(typed):
    arguments = [part for field, text in typed for part in (f"--{field.replace('_', '-')}", text)]
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            parse_training_arguments(arguments)
        except SystemExit as stopped:
            assert stopped.code in (0, 2)
            if stopped.code:
                lines = error.getvalue().split("\n")
                assert lines[0].startswith("train.py: error: ") and lines[1:] == [""]
