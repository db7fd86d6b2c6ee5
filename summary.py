"""Presets by the columns in which the papers are read: `python summary.py efficientnet-b0-g16-lnpn-16ipu`. See `--help`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any, Dict, List, Optional, Tuple, Type

import ipu_model  # noqa: F401  first: finds the IPU Model's poptorch where there is no Poplar SDK
from cli import EstimateArguments, SummaryArguments, parse_summary_arguments, run_program
from config import Config
from ipu_model.cost.hardware import MACHINES

LATENCY_RUNS = 20  # batch 1, one core, mean: as in EfficientNet's paper (arXiv 1905.11946, table 4)
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
    arguments = parse_summary_arguments(list(MACHINES))
    return run_program("summary.py", lambda: tell(arguments), poptorch_errors)


def poptorch_errors() -> Tuple[Type[Exception], ...]:
    """The errors of PopTorch, whose messages are for users."""
    from poptorch import Error

    return (Error,)


def tell(arguments: SummaryArguments) -> int:
    """Print the table, or its rows as JSON. Returns the exit code."""
    rows = [summarise(config, arguments) for config in arguments.configs]
    print(json.dumps(rows, indent=2) if arguments.is_json else "\n".join(table(rows, arguments.machine)))
    return 0


def summarise(config: Config, arguments: SummaryArguments) -> Row:
    """Parameters, multiply-accumulates and convolution outputs of one image, CPU latency, and estimated throughput on IPUs."""
    from datasets.factory import training_size
    from models.counting import count
    from models.factory import build_model

    model = build_model(config.model, training_size(config.data, config.run.seed)[1])
    counts = count(model, config.data.image_size)
    return {
        "preset": config.preset,
        "image_size": config.data.image_size,
        "num_parameters": counts.num_parameters,
        "macs": counts.macs,
        "activation_elements": counts.activation_elements,
        "cpu_latency_seconds": measure_latency(model, config.data.image_size) if arguments.has_latency else None,
        "training_images_per_second": estimated_speed(config, arguments.machine, is_inference=False),
        "inference_images_per_second": estimated_speed(config, arguments.machine, is_inference=True),
    }


def measure_latency(model: Any, image_size: int) -> float:
    """Mean seconds of 20 runs over one image on one core, plain PyTorch in float32, after two that do not count."""
    import torch

    image = torch.zeros(1, 3, image_size, image_size)
    seconds: List[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            model.eval()
            for _ in range(2 + LATENCY_RUNS):
                start = time.perf_counter()
                model(image)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.mean(seconds[2:])


def estimated_speed(config: Config, machine: str, is_inference: bool) -> Optional[float]:
    """Images/s of a preset on IPUs by the cost model; None where its program does not fit into their memory."""
    from estimate import estimate_config

    _, _, estimate = estimate_config(config, EstimateArguments(config, machine, None, is_inference, False, "", [], []), machine)
    return estimate.images_per_second if estimate.fits else None


def table(rows: List[Row], machine: str) -> List[str]:
    """Aligned lines under headings, and what the columns are."""
    shown = [list(COLUMNS.values()), *([text(column, row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in shown) for index in range(len(COLUMNS))]
    lines = ["  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))]) for line in shown]
    return [
        *lines,
        f"CPU latency: batch 1, one core of this machine, mean of {LATENCY_RUNS} runs. Images/s: estimated for {machine}; - where the",
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
