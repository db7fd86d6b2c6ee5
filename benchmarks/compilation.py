"""How long capturing a model takes, without the executable cache, on a miss and on a hit: `python -m benchmarks.compilation`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Optional, Tuple

import torch

import ipu_model  # noqa: F401
import poptorch
from config import load_preset
from models.task import TrainingTask, build_classifier

ROUNDS = 3


def main() -> None:
    """Print seconds for each preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=["efficientnet-b0-g16-gn-16ipu", "efficientnet-b0-g16-lnpn-16ipu"])
    arguments = parser.parse_args()
    poptorch.setLogLevel("ERR")
    compile_seconds(arguments.configs[0], None)  # torch's own first-time work
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {ROUNDS} in seconds: no cache, miss, hit")
    for name in arguments.configs:
        rounds = [in_turn(name) for _ in range(ROUNDS)]
        print(name, "  ".join(f"{statistics.median(times):.1f}" for times in zip(*rounds)))


def in_turn(name: str) -> Tuple[float, ...]:
    """Seconds without a cache, with an empty one, and with one that has the program."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(compile_seconds(name, cache) for cache in (None, folder, folder))


def compile_seconds(name: str, cache: Optional[str]) -> float:
    """Seconds to compile the training model of a preset on one IPU, for a micro batch of 4 at its own image size."""
    config = load_preset(name, {"pipeline_splits": ()})
    task = TrainingTask(build_classifier(config.model, 1000, config.precision), config.augmentation).train()
    options = poptorch.Options().enableExecutableCaching(cache)
    model = poptorch.trainingModel(task, options, poptorch.optim.SGD(task.parameters(), lr=0.1))
    size = config.data.image_size
    start = time.perf_counter()
    model.compile(torch.zeros(4, 3, size, size, dtype=torch.uint8), torch.zeros(4, dtype=torch.int32))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
