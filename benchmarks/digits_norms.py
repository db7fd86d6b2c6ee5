"""Accuracy on digits with BN, GN, LN and LN+PN over seeds: `python -m benchmarks.digits_norms`.

Each run is `train.py --config digits` with the norm's flags, so that each can be repeated alone; runs that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

TRAIN = Path(__file__).parent.parent / "train.py"
NORMS: Dict[str, List[str]] = {
    "BN": ["--norm", "batch", "--no-proxy-norm"],
    "GN (4 groups)": ["--norm", "group", "--no-proxy-norm"],
    "LN": ["--norm", "layer", "--no-proxy-norm"],
    "LN+PN": ["--norm", "layer", "--proxy-norm"],
}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/digits-norms", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    print("| norm | top-1 of each seed (%) | mean | spread (max - min) |\n|---|---|---|---|")
    for name, flags in NORMS.items():
        results = [run(Path(arguments.output), name, flags, seed) for seed in arguments.seeds]
        top1 = [result["val_top1"] for result in results]
        each = ", ".join(f"{value:.2f}" for value in top1)
        print(f"| {name} | {each} | {statistics.mean(top1):.2f} | {max(top1) - min(top1):.2f} |", flush=True)


def run(root: Path, name: str, flags: List[str], seed: int) -> dict:
    """The summary of one run, which is made or gone on with where it is not done."""
    folder = root / f"{name.split(' ')[0].lower().replace('+', '-')}-seed{seed}"
    summary = folder / "summary.json"
    command = [sys.executable, str(TRAIN), "--config", "digits", *flags, "--seed", str(seed), "--output", str(folder), "--resume", "auto"]
    log = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if log.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.stdout[-2000:]}")
    return json.loads(summary.read_text())


if __name__ == "__main__":
    main()
