"""What a preset costs on IPUs, before anyone has one: `python estimate.py --config efficientnet-b4-g16-lnpn-16ipu`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Type

import ipu_model  # first: finds the IPU Model's poptorch where there is no Poplar SDK
from cli import EstimateArguments, parse_estimate_arguments, run_program
from config import AUTOMATIC_SPLITS, Config, ConfigError, UserError
from ipu_model.cost.estimate import Estimate, estimate_program
from ipu_model.cost.hardware import MACHINES
from ipu_model.cost.page import comparison_page, report_page
from ipu_model.cost.schedule import SCHEDULES
from ipu_model.cost.settings import Settings
from ipu_model.cost.splits import best_cuts, largest_micro_batch, with_splits, with_units
from ipu_model.cost.tables import comparison, text_report

Case = Tuple[str, Any, Estimate]  # name, program, estimate


def main() -> int:
    """Estimate a preset, or compare several. Returns the exit code: 1 where the preset does not fit."""
    arguments = parse_estimate_arguments(list(MACHINES), SCHEDULES)
    return run_program("estimate.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: EstimateArguments) -> int:
    """Report one estimate, or a table of several. Returns the exit code."""
    if arguments.sweep or arguments.sweep_machines:
        return sweep(arguments)
    name, program, estimate = estimate_config(arguments.config, arguments, arguments.machine)
    print(json.dumps(estimate.as_json(), indent=2) if arguments.is_json else text_report(name, program, estimate))
    write_page(arguments.report, report_page(name, program, estimate))
    return 0 if estimate.fits else 1


def sweep(arguments: EstimateArguments) -> int:
    """One row for each preset and machine."""
    machines = arguments.sweep_machines or [arguments.machine]
    cases = [estimate_config(config, arguments, machine) for config in (arguments.config, *arguments.sweep) for machine in machines]
    names = [f"{name} on {estimate.machine.name}" for name, _, estimate in cases]
    estimates = [estimate for _, _, estimate in cases]
    if arguments.is_json:
        print(json.dumps([{"preset": name, **estimate.as_json()} for name, _, estimate in cases], indent=2))
    else:
        print(comparison(names, estimates))
    write_page(arguments.report, comparison_page(names, estimates))
    return 0


def write_page(path: str, page: str) -> None:
    """Write a report where one is asked for; UserError where it cannot be written."""
    if not path:
        return
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--report {path} cannot be written: {error.strerror}") from error


def estimate_config(config: Config, arguments: EstimateArguments, machine: str) -> Case:
    """The program of a preset with its stages, and what it costs."""
    is_auto = config.ipu.pipeline_splits == AUTOMATIC_SPLITS
    program, settings, paths = trace_config(config, arguments.is_inference)
    settings = dataclasses.replace(settings, schedule=arguments.schedule or settings.schedule)
    if is_auto:
        program, splits = split_automatically(program, settings, machine, paths, config.ipu.automatic_stages)
        settings = dataclasses.replace(settings, schedule=arguments.schedule or "grouped")
        largest = largest_micro_batch(program, settings, MACHINES[machine])
        print(f"pipeline_splits: {' '.join(splits)}\nlargest micro batch that fits: {largest}\n", file=sys.stderr)
    return config.preset, program, estimate_program(program, settings, MACHINES[machine])


def split_automatically(program: Any, settings: Settings, machine: str, paths: Sequence[str], num_stages: int) -> Tuple[Any, List[str]]:
    """Stages for a program traced without any, and the module paths at which they begin; ConfigError where none fits."""
    units = with_units(program, [f"{_prefix(program)}{path}" for path in paths])
    cuts = best_cuts(units, num_stages, settings, MACHINES[machine])
    if cuts is None:
        raise ConfigError(
            f"no way to cut the model into {num_stages} stages fits the memory of {machine}: use more stages (--automatic-stages), a "
            "smaller micro batch, or --recomputation"
        )
    return with_splits(units, cuts), [paths[cut - 1] for cut in cuts]


def _prefix(program: Any) -> str:
    """What stands before the network's own paths in the records."""
    return "classifier.network." if any(op.path.startswith("classifier.") for op in program.ops) else "network."


def find_splits(config: Config, num_stages: int, machine: str = "pod16") -> Tuple[str, ...]:
    """The best splits of a preset's training model; ConfigError where none fits."""
    program, settings, paths = trace_config(config, is_inference=False)
    return tuple(split_automatically(program, settings, machine, paths, num_stages)[1])


def trace_config(config: Config, is_inference: bool) -> Tuple[Any, Settings, List[str]]:
    """The program of a preset's model, its settings, and the paths at which the network can be cut."""
    import torch

    import poptorch
    from datasets.factory import training_size
    from ipu_options.options import training_options, validation_options
    from ipu_options.pipeline import place_on_ipus, split_candidates
    from models.norm import norm_parameter_names
    from models.task import build_classifier, build_training_task
    from training.optimizers import build_optimizer

    num_classes = training_size(config.data, config.run.seed)[1]
    with torch.device("meta"):
        classifier = build_classifier(config.model, num_classes, config.precision)
    splits = () if config.ipu.pipeline_splits == AUTOMATIC_SPLITS else config.ipu.pipeline_splits
    shared: Dict[str, Any] = dict(seed=config.run.seed)
    if is_inference:
        place_on_ipus(classifier.eval(), classifier.network, splits)
        options = validation_options(config.batch, config.ipu, config.precision, **shared)
        executor = poptorch.inferenceModel(classifier, options)
        size, channels, batch = config.validation_image_size, 3, config.validation_micro_batch_size
        inputs: Tuple[Any, ...] = (torch.empty(batch * options.device_iterations * options.replication_factor, channels, size, size,
                                               dtype=torch.uint8, device="meta"),)  # fmt: skip
    else:
        task = build_training_task(classifier, config.model, config.augmentation)
        place_on_ipus(task, classifier.network, splits)
        options = training_options(config.batch, config.ipu, config.precision, config.optimizer, **shared)
        executor = poptorch.trainingModel(task, options, build_optimizer(config, task, norm_parameter_names(task)))
        samples = config.batch.images_per_update * config.batch.device_iterations
        size = config.data.image_size
        inputs = (
            torch.empty(samples, 3, size, size, dtype=torch.uint8, device="meta"),
            torch.empty(samples, dtype=torch.int32, device="meta"),
        )
    level = poptorch.logger.level
    poptorch.setLogLevel("ERR")  # not of torch.zeros inside forward and the like: nothing runs here
    try:
        return (*ipu_model.trace(executor, *inputs), split_candidates(classifier.network))
    finally:
        poptorch.logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
