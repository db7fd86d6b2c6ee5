"""Presets by the columns in which the papers are read: `python summary.py efficientnet-b0-g16-lnpn-16ipu`. See `--help`."""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, List, Tuple, Type

import ipu_model  # noqa: F401  first: finds the IPU Model's poptorch where there is no Poplar SDK
from cli import SummaryArguments, parse_summary_arguments, run_program

COLUMNS = {
    "preset": "preset",
    "image_size": "pixels",
    "num_parameters": "parameters (M)",
    "macs": "MACs (G)",
    "activation_elements": "activations (M)",
    "cpu_latency_seconds": "CPU latency (ms)",
    "training_images_per_second": "training (images/s)",
    "inference_images_per_second": "inference (images/s)",
}
SCALES = {"num_parameters": 1e-6, "macs": 1e-9, "activation_elements": 1e-6, "cpu_latency_seconds": 1e3}
Row = Dict[str, Any]


def main() -> int:
    """Print one row for each preset. Returns the exit code."""
    arguments = parse_summary_arguments()
    return run_program("summary.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: SummaryArguments) -> int:
    """Print the table, or its rows as JSON. Returns the exit code."""
    import assembly  # torch takes seconds, for which a mistake on the command line does not wait

    rows = [assembly.summarise(config, arguments.has_latency) for config in arguments.configs]
    print(json.dumps(rows, indent=2) if arguments.is_json else "\n".join(table(rows, assembly.LATENCY_RUNS)))
    return 0


def table(rows: List[Row], latency_runs: int) -> List[str]:
    """Aligned lines under headings, and what the columns are."""
    shown = [list(COLUMNS.values()), *([text(column, row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in shown) for index in range(len(COLUMNS))]
    lines = ["  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))]) for line in shown]
    machines = ", ".join(sorted({row["machine"] for row in rows}))
    return [
        *lines,
        f"CPU latency: batch 1, one core of this machine, mean of {latency_runs} runs. Images/s: estimated for {machines}; - where the",
        "program does not fit (see estimate.py). Activations: outputs of convolutions. MACs, activations: of one image at training size.",
    ]


def text(column: str, value: Any) -> str:
    """A cell."""
    if value is None:
        return "-"
    if column in SCALES:
        return f"{value * SCALES[column]:.3f}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
