"""A whole training step with LN+PN against one with GN, same network: `python -m benchmarks.proxy_norm_step`."""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable, Dict

import torch

import ipu_model  # noqa: F401
import poptorch
from benchmarks.timing import measure_in_turn
from config import load_preset
from models.task import TrainingTask, build_classifier

GN: Dict[str, Any] = {"norm": "group", "proxy_norm": False}
LNPN: Dict[str, Any] = {"norm": "layer", "proxy_norm": True}
NORMS: Dict[str, Dict[str, Any]] = {
    "GN": GN,
    "GN, strided groups": {**GN, "norm_channel_grouping": "strided"},
    "LN": {"norm": "layer", "proxy_norm": False},
    "LN+PN": LNPN,
    "LN+PN, scale everywhere": {**LNPN, "proxy_norm_scale": "everywhere"},
}


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="efficientnet-b0")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--gradient-accumulation", type=int, default=3, help="micro batches in a step")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--processor-time", action="store_true", help="seconds of the processor, for a machine that does other things too")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    steps = {name: build_step(arguments, fields) for name, fields in NORMS.items()}
    medians = measure_in_turn(steps, arguments.rounds, clock=clock)
    for name, seconds in medians.items():
        print(f"{name:27} {1000 * seconds:8.1f} ms a step, {seconds / medians['GN']:.3f} x GN")


def build_step(arguments: argparse.Namespace, fields: Dict[str, Any]) -> Callable[[], object]:
    """One weight update of the G16 network with this norm, on the IPU Model in float32."""
    values = dict(architecture=arguments.architecture, precision="32.32", pipeline_splits=(), **fields)
    config = load_preset("digits", values)
    torch.manual_seed(0)
    task = TrainingTask(build_classifier(config.model, 1000, config.precision), config.augmentation).train()
    size, count = arguments.image_size, arguments.micro_batch_size * arguments.gradient_accumulation
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(0, 1000, (count,), dtype=torch.int32)
    options = poptorch.Options()
    options.Training.gradientAccumulation(arguments.gradient_accumulation)
    model = poptorch.trainingModel(task, options, poptorch.optim.SGD(task.parameters(), lr=1e-3, momentum=0.9))
    return lambda: model(images, labels)


if __name__ == "__main__":
    main()
