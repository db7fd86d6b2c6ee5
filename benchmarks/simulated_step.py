"""A step on the IPU Model against the same step in a hand-written PyTorch loop: `python -m benchmarks.simulated_step`.

Same network, micro batches, replicas, accumulation, optimizer and precision; both take turns in one process, medians are compared.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any, Callable, Dict, Tuple

import torch

import ipu_model  # noqa: F401
import poptorch
from benchmarks.timing import measure_in_turn
from config import Config, load_preset
from models.norm import norm_parameter_names
from models.task import TrainingTask, build_classifier
from training.optimizers import parameter_groups


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="digits", help="preset whose network and batch are used")
    parser.add_argument("--image-size", type=int, help="pixels on a side (default: the preset's)")
    parser.add_argument("--micro-batch-size", type=int, help="images (default: the preset's)")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in ("image_size", "micro_batch_size") if getattr(arguments, name)}
    plain = {"precision": "32.32", "optimizer": "sgd", "pipeline_splits": (), "mixup_alpha": 0.0, "cutmix_strength": 0.0}
    config = load_preset(arguments.config, {**plain, **given, "gradient_accumulation": 2, "replicas": 2})
    simulated, written = build_steps(config)
    medians = measure_in_turn({"IPU Model": simulated, "hand-written loop": written}, arguments.rounds)
    for name, seconds in medians.items():
        print(f"{name:18} {1000 * seconds:8.1f} ms a step")
    print(
        f"ratio {medians['IPU Model'] / medians['hand-written loop']:.3f}  (torch {torch.__version__}, {torch.get_num_threads()} threads)"
    )


def build_steps(config: Config) -> Tuple[Callable[[], object], Callable[[], object]]:
    """The same weight update twice: by the IPU Model, and by a loop over micro batches with torch.optim.SGD."""
    torch.manual_seed(0)
    task = TrainingTask(build_classifier(config.model, 10, config.precision), config.augmentation).train()
    reference = copy.deepcopy(task)
    batch = config.batch
    images = torch.randint(0, 256, (batch.images_per_update, 3, config.data.image_size, config.data.image_size), dtype=torch.uint8)
    labels = torch.randint(0, 10, (batch.images_per_update,), dtype=torch.int32)
    settings: Dict[str, Any] = dict(lr=1e-3, momentum=0.9)
    undecayed = norm_parameter_names(task)

    options = poptorch.Options().replicationFactor(batch.replicas).outputMode(poptorch.OutputMode.Sum)
    options.Training.gradientAccumulation(batch.accumulation_steps)
    optimizer = poptorch.optim.SGD(parameter_groups(task, undecayed, 1e-4), **settings)
    model = poptorch.trainingModel(task, options, optimizer)

    reference_optimizer = torch.optim.SGD(parameter_groups(reference, undecayed, 1e-4), **settings)
    num_micro_batches = batch.replicas * batch.accumulation_steps

    def written() -> float:
        reference_optimizer.zero_grad()
        total = 0.0
        for pixels, targets in zip(images.chunk(num_micro_batches), labels.chunk(num_micro_batches)):
            loss, _ = reference(pixels, targets)
            (loss / num_micro_batches).backward()
            total += loss.item()
        reference_optimizer.step()
        return total

    return lambda: model(images, labels), written


if __name__ == "__main__":
    main()
