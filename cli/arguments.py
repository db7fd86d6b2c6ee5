"""The command line of each program, as typed values."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from config import MACHINES, Config, ConfigError, load_preset, preset_names, second_phase

from .flags import Parser, add_field_flags, field_values


@dataclass(frozen=True)
class TrainingArguments:
    """train.py's command line: the resolved config, whether it is only to be shown, and what was stated on the line itself."""

    config: Config
    is_dry_run: bool = False
    is_preset_given: bool = True
    overrides: Dict[str, Any] = dataclasses.field(default_factory=dict)


def parse_training_arguments(arguments: Optional[Sequence[str]] = None) -> TrainingArguments:
    """Parse train.py's command line.

    `--list-configs` prints the presets and exits; a mistake is one line on stderr and exit code 2.
    """
    parser = Parser(
        prog="train.py",
        description="Train a preset of configs.yml. Every field is a flag; a flag wins over the preset, the preset over the default.",
        epilog="examples:\n  python train.py --config digits\n  python train.py --config efficientnet-b0-g16-lnpn-16ipu "
        "--data-path /data/imagenet --dry-run\n  python train.py --config digits --output runs/a --resume auto",
    )
    parser.add_argument(
        "--config",
        metavar="PRESET",
        help="name of a preset (default digits, with --data-path alone folder, with --fine-tune-from the checkpoint's config)",
    )
    parser.add_argument("--list-configs", action="store_true", help="print the names of all presets")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved preset with every derived value, train nothing")
    add_field_flags(parser)
    namespace = parser.parse_known_or_fail(arguments)
    if namespace.list_configs:
        sys.stdout.write("\n".join(preset_names()) + "\n")
        sys.exit(0)
    values = field_values(namespace)
    try:
        is_of_checkpoint = bool(values.get("fine_tune_from")) and namespace.config is None  # whose config takes the values
        own = {"fine_tune_from": values["fine_tune_from"]} if is_of_checkpoint else values
        config = load_preset(namespace.config or _default_preset(own), own)
        return TrainingArguments(config, namespace.dry_run, namespace.config is not None, values)
    except ConfigError as error:
        parser.error(str(error))


def _default_preset(values: Dict[str, Any]) -> str:
    """The quick start; where a path is given and no data set, the preset that takes what lies there."""
    return "folder" if "data_path" in values and "dataset" not in values else "digits"


@dataclass(frozen=True)
class EstimateArguments:
    """estimate.py's command line; `sweep` has further presets for one table, and configs are those of the phase asked for."""

    config: Config
    schedule: Optional[str]
    is_inference: bool
    is_json: bool
    report: str
    sweep: List[Config]
    sweep_machines: List[str]


def parse_estimate_arguments(schedules: Sequence[str], arguments: Optional[Sequence[str]] = None) -> EstimateArguments:
    """Parse estimate.py's command line; a mistake is one line on stderr and exit code 2."""
    parser = Parser(
        prog="estimate.py",
        description="What a preset costs on IPUs: throughput, memory, pipeline. Nothing is trained. Every field is a flag.",
        epilog="examples:\n  python estimate.py --config efficientnet-b4-g16-lnpn-16ipu\n  python estimate.py --config "
        "efficientnet-b5-g16-gn-16ipu --pipeline-splits auto --automatic-stages 4\n  python estimate.py --config resnet50-pod16 "
        "--sweep efficientnet-b0-g16-gn-16ipu --sweep-machines pod16 bow-pod16 --report sweep.html",
    )
    parser.add_argument("--config", default="digits", metavar="PRESET", help="name of a preset (default digits)")
    known = ", ".join(schedules)
    parser.add_argument("--pipeline-schedule", choices=schedules, metavar="NAME", help=f"one of {known} (default: the preset's)")
    parser.add_argument("--inference", action="store_true", help="the validation model instead of the training model")
    parser.add_argument("--fine-tuning", action="store_true", help="the second phase of training (--fine-tune-...) instead of the first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--report", default="", metavar="FILE.html", help="write a page with charts")
    parser.add_argument("--sweep", nargs="*", default=[], metavar="PRESET", help="further presets to compare in one table")
    parser.add_argument("--sweep-machines", nargs="*", default=[], choices=MACHINES, metavar="NAME", help="machines to compare")
    add_field_flags(parser)
    namespace = parser.parse_known_or_fail(arguments)
    values = field_values(namespace)
    try:
        configs = [load_preset(name, values) for name in (namespace.config, *namespace.sweep)]
        configs = [second_phase(config) if namespace.fine_tuning else config for config in configs]
    except ConfigError as error:
        parser.error(str(error))
    return EstimateArguments(
        configs[0], namespace.pipeline_schedule, namespace.inference, namespace.json,
        namespace.report, configs[1:], namespace.sweep_machines,
    )  # fmt: skip


@dataclass(frozen=True)
class SummaryArguments:
    """summary.py's command line."""

    configs: List[Config]
    has_latency: bool
    is_json: bool


def parse_summary_arguments(arguments: Optional[Sequence[str]] = None) -> SummaryArguments:
    """Parse summary.py's command line; a mistake is one line on stderr and exit code 2."""
    parser = Parser(
        prog="summary.py",
        usage="summary.py [PRESET ...] [options]",
        description="Size, cost and speed of presets in one table. Every field is a flag, for all presets alike.",
        epilog="examples:\n  python summary.py efficientnet-b0-g1-gn-16ipu efficientnet-b0-g16-lnpn-16ipu\n  python summary.py "
        "efficientnet-b7-g1-bn-16ipu --no-latency",
    )
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="names of presets; none: all")
    parser.add_argument("--no-latency", action="store_true", help="leave out what is measured here")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_field_flags(parser)
    namespace = parser.parse_known_or_fail(arguments)
    try:
        configs = [load_preset(name, field_values(namespace)) for name in namespace.presets or preset_names()]
    except ConfigError as error:
        parser.error(str(error))
    return SummaryArguments(configs, not namespace.no_latency, namespace.json)


@dataclass(frozen=True)
class ValidationArguments:
    """validate.py's command line; `overrides` are fields that win over those stored with the checkpoint."""

    checkpoint: str
    weights: str
    output: str
    export: str
    averaged: str
    image_sizes: Optional[Tuple[int, ...]]
    overrides: Dict[str, Any]


def image_sizes(text: str) -> Tuple[int, ...]:
    """`160:320:32` (both ends belong to it), `160,192,224`, or `best`, which is empty: the sizes follow from the accuracy."""
    try:
        if text == "best":
            return ()
        if ":" in text:
            first, last, step = (int(part) for part in text.split(":"))
            sizes = tuple(range(first, last + 1, step))
        else:
            sizes = tuple(int(part) for part in text.split(","))
        if sizes and min(sizes) > 0:
            return sizes
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected FIRST:LAST:STEP such as 160:320:32, sizes such as 160,192, or best; got {text!r}")


VALIDATION_FIELDS = (
    "dataset", "data_path", "num_workers", "validation_image_size", "validation_micro_batch_size", "validation_replicas",
)  # fmt: skip


def parse_validation_arguments(arguments: Optional[Sequence[str]] = None) -> ValidationArguments:
    """Parse validate.py's command line; a mistake is one line on stderr and exit code 2."""
    parser = Parser(
        prog="validate.py",
        usage="validate.py --checkpoint FILE|FOLDER [options]",
        description="Validate a checkpoint on the validation images of its data set. Only the checkpoint is needed; flags win over it.",
        epilog="example:\n  python validate.py --checkpoint runs/digits-20260101-120000 --validation-image-size 24",
    )
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE|FOLDER", help="a checkpoint, or a run folder (its best, else its last)"
    )
    parser.add_argument("--weights", choices=("auto", "current", "averaged"), default="auto", help="auto: averaged where there are any")
    parser.add_argument(
        "--averaged", choices=("exponential", "mean"), default="", help="average the weights of a run folder's checkpoints/epoch-*.pt first"
    )
    parser.add_argument(
        "--image-sizes", type=image_sizes, metavar="SIZES",
        help="validate at sizes 160:320:32 (or 160,192); best: from the size of training upwards, until accuracy falls",
    )  # fmt: skip
    parser.add_argument("--output", default="", metavar="DIR", help="where validate.csv and validate.json go (default: the run's folder)")
    parser.add_argument("--export", default="", metavar="FILE", help="write the weights as a safetensors file")
    parser.add_argument("--replicas", dest="validation_replicas", type=int, default=argparse.SUPPRESS, help="as --validation-replicas")
    add_field_flags(parser, VALIDATION_FIELDS)
    namespace = parser.parse_known_or_fail(arguments)
    overrides = {field: value for field, value in field_values(namespace).items() if field in VALIDATION_FIELDS}
    if namespace.averaged and namespace.weights != "auto":
        parser.error("--averaged makes the weights itself: leave out --weights")
    return ValidationArguments(
        namespace.checkpoint, namespace.weights, namespace.output, namespace.export, namespace.averaged, namespace.image_sizes, overrides
    )
