"""What a preset costs on IPUs, before anyone has one: `python estimate.py --config efficientnet-b4-g16-lnpn-16ipu`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, List, Tuple, Type

import ipu_model  # noqa: F401  first: finds the IPU Model's poptorch where there is no Poplar SDK
from cli import EstimateArguments, parse_estimate_arguments, run_program
from config import UserError, with_fields
from ipu_model.cost.page import comparison_page, report_page
from ipu_model.cost.schedule import SCHEDULES
from ipu_model.cost.tables import comparison, text_report


def main() -> int:
    """Estimate a preset, or compare several. Returns the exit code: 1 where the preset does not fit."""
    arguments = parse_estimate_arguments(SCHEDULES)
    return run_program("estimate.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: EstimateArguments) -> int:
    """Report one estimate, or a table of several. Returns the exit code."""
    import assembly  # torch takes seconds, for which a mistake on the command line does not wait

    configs = [arguments.config, *arguments.sweep]
    if arguments.sweep_machines:
        configs = [with_fields(config, machine=machine) for config in configs for machine in arguments.sweep_machines]
    cases = [assembly.estimate_config(config, arguments.schedule, arguments.is_inference) for config in configs]
    for case in cases:
        if case.found:
            note = f"pipeline_splits: {' '.join(case.found.splits)}\nlargest micro batch that fits: {case.found.largest_micro_batch}\n"
            print(note, file=sys.stderr)
    if arguments.sweep or arguments.sweep_machines:
        return compare(cases, arguments)
    return report(cases[0], arguments)


def report(case: Any, arguments: EstimateArguments) -> int:
    """Everything about one estimate; 1 where it does not fit."""
    estimate = case.estimate
    print(json.dumps(estimate.as_json(), indent=2) if arguments.is_json else text_report(case.name, case.program, estimate))
    write_page(arguments.report, report_page(case.name, case.program, estimate))
    return 0 if estimate.fits else 1


def compare(cases: List[Any], arguments: EstimateArguments) -> int:
    """One row for each preset and machine."""
    estimates = [case.estimate for case in cases]
    names = [f"{case.name} on {case.estimate.machine.name}" for case in cases]
    if arguments.is_json:
        print(json.dumps([{"preset": case.name, **case.estimate.as_json()} for case in cases], indent=2))
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


if __name__ == "__main__":
    sys.exit(main())
