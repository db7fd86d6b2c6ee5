"""Flags of train.py and validate.py."""

from __future__ import annotations

import pytest

from cli import describe, parse_training_arguments, parse_validation_arguments
from config import SECTION_OF_FIELD, load_preset, preset_names


def test_every_field_is_a_flag_that_reaches_the_config(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_training_arguments(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all("--" + field.replace("_", "-") in text for field in SECTION_OF_FIELD)


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
        (["--micro-batch-size", "x"], "invalid int value: 'x'"),
        (["--norm", "leyer"], "'layer'"),
        (["--epochs", "0"], "greater than or equal to 1"),
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
    assert all(f"  {field}: " in text for field in SECTION_OF_FIELD)
    assert "  global_batch_size: 18" in text  # 3 images x 2 replicas x 3 micro batches


def test_validation_takes_only_its_own_fields():
    parsed = parse_validation_arguments(["--checkpoint", "run", "--validation-image-size", "24"])
    assert parsed.overrides == {"validation_image_size": 24}
    with pytest.raises(SystemExit):
        parse_validation_arguments(["--checkpoint", "run", "--epochs", "3"])
