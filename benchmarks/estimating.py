"""How long an estimate takes against compiling the same model for the IPU Model: `python -m benchmarks.estimating`."""

from __future__ import annotations

import argparse

import torch

import ipu_model  # noqa: F401
import poptorch
from assembly.estimates import estimate_config
from benchmarks.compilation import compile_seconds
from benchmarks.timing import measure_in_turn
from config import load_preset

ROUNDS = 3


def main() -> None:
    """Print seconds for each preset; torch's own first-time work is done before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=["efficientnet-b0-g16-lnpn-16ipu", "efficientnet-b5-g16-lnpn-16ipu"])
    arguments = parser.parse_args()
    poptorch.setLogLevel("ERR")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {ROUNDS} in seconds: estimate, compilation, ratio")
    for name in arguments.configs:
        ways = {"estimate": lambda name=name: estimate_training(name), "compilation": lambda name=name: compile_seconds(name, None)}
        seconds = measure_in_turn(ways, ROUNDS, warmup=1)
        print(name, "  ".join(f"{s:.1f}" for s in seconds.values()), f" {seconds['estimate'] / seconds['compilation']:.2f}")


def estimate_training(name: str) -> None:
    """Trace a preset's training model and estimate it, as `estimate.py` does."""
    estimate_config(load_preset(name, {}))


if __name__ == "__main__":
    main()
