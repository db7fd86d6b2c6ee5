"""Train a preset: `python train.py --config digits`. See `python train.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple, Type

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from cli import TrainingArguments, derived_values, describe, parse_training_arguments, run_program, training_lines
from config import Config, config_of_checkpoint


def main() -> int:
    """Resolve the preset; show it, or train it. Returns the exit code."""
    arguments = parse_training_arguments()
    return run_program("train.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: TrainingArguments) -> int:
    """Show the config, or train its phases one after the other, each from the weights of the one before. Returns the exit code."""
    import assembly  # torch takes seconds, for which a mistake on the command line does not wait

    assembly.join()
    config, source = arguments.config, None
    if config.run.fine_tune_from:
        source = assembly.read_end(Path(config.run.fine_tune_from))
        if not arguments.is_preset_given:
            config = config_of_checkpoint(source.payload["config"], arguments.overrides)
    say = print if assembly.is_first() else _say_nothing
    if assembly.is_first():
        sys.stderr.write(assembly.resolution_warning(config))
    phases = assembly.prepare_phases(config)
    if arguments.is_dry_run:
        facts, rates = assembly.facts_of(config)
        say("\n".join(dry_run_lines(config, facts, rates)))
        return 0
    outcome = None
    for phase in phases:
        if outcome is not None:
            source, phase = assembly.read_end(outcome.folder), assembly.following(phase, outcome.folder)
        if source is not None:
            layers = " ".join(phase.model.trainable_layers or ["all layers"])
            say(f"fine-tuning {phase.schedule.epochs} epochs at {phase.data.image_size} pixels: {layers}")
        outcome = assembly.run_phase(phase, source)
        say("\n".join(training_lines(outcome.summary, outcome.folder, outcome.exit_code)))
        if outcome.exit_code:
            break
    return outcome.exit_code if outcome else 0


def dry_run_lines(config: Config, facts: Any, rates: Dict[str, float]) -> List[str]:
    """The resolved config, and what follows from it and the facts of its training set."""
    lines = describe(config, {**derived_values(config, facts.num_images, facts.num_classes), **rates})
    if facts.is_counted:
        return lines
    place = config.data.data_path or "an empty --data-path"
    return [*lines, f"note: no {config.data.dataset} in {place}; training_images is the published number"]


def _say_nothing(line: str) -> None:
    """What the instances behind the first one say."""


if __name__ == "__main__":
    sys.exit(main())
