"""Validate a checkpoint: `python validate.py --checkpoint RUN`. See `python validate.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Tuple, Type

import ipu_model  # noqa: F401  finds the IPU Model's poptorch where there is no Poplar SDK
from cli import ValidationArguments, parse_validation_arguments, run_program, validation_lines


def main() -> int:
    """Read the checkpoint, validate it, write and print the result. Returns the exit code."""
    arguments = parse_validation_arguments()
    return run_program("validate.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: ValidationArguments) -> int:
    """Validate the checkpoint's weights on the validation images, at one size or several; export them where asked for."""
    import assembly  # torch takes seconds, for which a mistake on the command line does not wait

    assembly.join()
    stored = assembly.load_weights(Path(arguments.checkpoint), arguments.weights, arguments.averaged)
    config = assembly.config_of(stored, arguments.overrides)
    folder = Path(arguments.output) if arguments.output else stored.path if stored.path.is_dir() else stored.path.parent.parent
    if arguments.image_sizes is not None:
        rows = assembly.validate_sizes(config, stored, arguments.image_sizes)
        lines = assembly.write_sweep(folder, rows, f"{config.preset}, {folder.name}") if assembly.is_first() else []
    else:
        scores = assembly.validate(config, stored)
        result = {"checkpoint": str(stored.path), "weights": stored.kind, "image_size": config.validation_image_size, **scores}
        if assembly.is_first():
            assembly.record_result(folder, result)
        lines = validation_lines(result, folder, arguments.export)
    if assembly.is_first():
        if arguments.export:
            assembly.export_weights(Path(arguments.export), stored.weights, config.preset)
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
