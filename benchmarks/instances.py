"""Two instances with one core each against one process that uses both cores: `python -m benchmarks.instances`.

The same weight update of the same network over the same images. The two ways take turns, each in fresh processes; medians of all their
steps are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Dict, List

import torch

import ipu_model  # noqa: F401
import popdist
import popdist.poptorch
import poptorch
from config import load_preset
from models.norm import norm_parameter_names
from models.task import TrainingTask, build_classifier
from training.optimizers import parameter_groups

MARK = "seconds of steps:"


def main() -> None:
    """Print both speeds and their ratio, or, started by itself, take the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="efficientnet-b0-g16-gn-16ipu", help="preset whose network is used")
    parser.add_argument("--image-size", type=int, default=96, help="pixels on a side")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="images")
    parser.add_argument("--gradient-accumulation", type=int, default=2, help="micro batches of each replica in a step")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        take_steps(arguments)
        return
    cores = os.cpu_count() or 1
    launch = [sys.executable, "-m", "ipu_model.poprun", "--num-instances=2", "--num-replicas=2"]
    ways: Dict[str, Any] = {"one process": ([], cores), "two instances": (launch, max(1, cores // 2))}
    seconds: Dict[str, List[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, (launcher, threads) in ways.items():
            seconds[name] += run(launcher, threads)
    images = 2 * arguments.gradient_accumulation * arguments.micro_batch_size
    speeds = {name: images / statistics.median(values) for name, values in seconds.items()}
    for name, (_, threads) in ways.items():
        print(f"{name:14} {speeds[name]:7.1f} images/s  ({threads} threads in a process)")
    print(f"ratio {speeds['two instances'] / speeds['one process']:.3f}  (torch {torch.__version__}, {cores} cores)")


def run(launcher: List[str], threads: int) -> List[float]:
    """Seconds of each step of one way."""
    command = [*launcher, sys.executable, "-m", "benchmarks.instances", "--worker", *sys.argv[1:]]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True)
    lines = [line.split(MARK)[1] for line in done.stdout.splitlines() if MARK in line]
    if done.returncode or not lines:
        sys.exit(f"benchmarks.instances: {' '.join(command)} ended with exit code {done.returncode}\n{done.stderr}")
    return [float(text) for text in lines[0].split()]


def take_steps(arguments: argparse.Namespace) -> None:
    """Two replicas' steps, by this process or by two; the first one prints its times."""
    is_launched = popdist.isPopdistEnvSet()
    options: Any = popdist.poptorch.Options() if is_launched else poptorch.Options().replicationFactor(2)
    options.Training.gradientAccumulation(arguments.gradient_accumulation)
    config = load_preset(arguments.config, {"mixup_alpha": 0.0, "cutmix_strength": 0.0, "precision": "32.32"})
    torch.manual_seed(0)
    task = TrainingTask(build_classifier(config.model, 10, config.precision), config.augmentation).train()
    optimizer = poptorch.optim.SGD(parameter_groups(task, norm_parameter_names(task), 1e-4), lr=1e-3, momentum=0.9)
    model = poptorch.trainingModel(task, options, optimizer)
    count = options.replication_factor * arguments.gradient_accumulation * arguments.micro_batch_size
    images = torch.randint(0, 256, (count, 3, arguments.image_size, arguments.image_size), dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), dtype=torch.int32)
    for _ in range(2):
        model(images, labels)
    seconds = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        model(images, labels)
        seconds.append(time.perf_counter() - start)
    if popdist.getInstanceIndex() == 0:
        print(MARK, *seconds)


if __name__ == "__main__":
    main()
