"""The paper's five variants at small scale, with fine-tuning, over seeds: `python -m benchmarks.study`.

Trains on digits, or with `--dataset` and `--data-path` on CIFAR-10 or Fashion-MNIST whose files are there; nothing is downloaded. It can be
stopped and started again: finished runs are kept, the one under way goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Tuple

import ipu_model  # noqa: F401
from assembly.estimates import estimate_config
from config import Config, load_preset
from datasets.errors import DataError
from datasets.factory import build_image_sets
from training.run.size_sweep import pareto_front

GN = {"norm": "group", "proxy_norm": False}
G1 = {"group_size": 1, "expand_ratio": 6}
VARIANTS: Dict[str, Tuple[str, Dict[str, Any]]] = {
    "G1-GN-Native": ("native", {**G1, **GN}),
    "G16-GN-Native": ("native", GN),
    "G16-GN-Half": ("half", GN),
    "G16-LN+PN-Native": ("native", {}),
    "G16-LN+PN-Half": ("half", {}),
}
# Pixels on a side, native and half. The paper's half sizes have half the pixels, and sizes must agree modulo the network's stride of 8:
# 44 % of the pixels for digits, 56 % for the others.
SIZES = {"digits": (24, 16), "cifar10": (32, 24), "fashion-mnist": (32, 24)}
COLUMNS: Tuple[str, ...] = (
    "variant",
    "seeds",
    "top1_before",
    "top1_mean",
    "top1_deviation",
    "images_per_second",
    "ipu_images_per_second",
    "is_on_front",
)


def main() -> None:
    """Train what is not trained yet, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=tuple(SIZES), default="digits")
    parser.add_argument("--data-path", default="", help="folder with the files of CIFAR-10 or Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=10, help="of training; two more of fine-tuning follow")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread where there are several")
    parser.add_argument("--output", default="runs/study", help="folder of runs, table and plot")
    arguments = parser.parse_args()
    folder = Path(arguments.output) / arguments.dataset
    try:
        build_image_sets(study_config(arguments, "G16-GN-Native", 0, folder).data, 0)
    except DataError as error:
        sys.exit(f"study: {error}")
    runs = [(variant, seed) for seed in arguments.seeds for variant in VARIANTS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: train(arguments, run[0], run[1], folder), runs))
    rows = [row_of(arguments, variant, folder) for variant in VARIANTS]
    front = pareto_front(rows, "images_per_second", "top1_mean")
    rows = [{**row, "is_on_front": int(index in front)} for index, row in enumerate(rows)]
    write_table(folder / "study.csv", rows)
    draw(folder / "study.png", rows, f"{arguments.dataset}, {arguments.epochs} epochs, {len(arguments.seeds)} seeds")
    print("\n".join([*markdown(rows), f"written to {folder}/study.csv and study.png"]))


def fields(arguments: argparse.Namespace, variant: str, seed: int, folder: Path) -> Dict[str, Any]:
    """The fields of a run that differ from the preset digits-half."""
    resolution, changes = VARIANTS[variant]
    native, half = SIZES[arguments.dataset]
    size = native if resolution == "native" else half
    preprocessing = "shift-flip" if arguments.dataset == "cifar10" else "shift"
    return {
        **changes, "dataset": arguments.dataset, "data_path": arguments.data_path or "none", "preprocessing": preprocessing,
        "image_size": size, "validation_image_size": size, "fine_tune_image_size": native, "epochs": arguments.epochs, "seed": seed,
        "validate_every_epochs": "none", "output": str(run_folder(folder, variant, seed)),
    }  # fmt: skip


def study_config(arguments: argparse.Namespace, variant: str, seed: int, folder: Path) -> Config:
    """The config of a run."""
    return load_preset("digits-half", fields(arguments, variant, seed, folder))


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / f"{variant}-seed{seed}"


def train(arguments: argparse.Namespace, variant: str, seed: int, folder: Path) -> None:
    """Train and fine-tune in a process of its own, unless that is done."""
    if (run_folder(folder, variant, seed) / "fine-tune" / "summary.json").is_file() and _is_done(run_folder(folder, variant, seed)):
        return
    command = [sys.executable, "train.py", "--config", "digits-half", "--resume", "auto"]
    for name, value in fields(arguments, variant, seed, folder).items():
        flag = name.replace("_", "-")
        command += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    threads = {"OMP_NUM_THREADS": "1"} if arguments.jobs > 1 else {}
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"study: {variant}, seed {seed}: exit code {done.returncode}\n{done.stderr}")
    print(f"{variant}, seed {seed}: {read_summary(run_folder(folder, variant, seed))['val_top1']:.2f} %", flush=True)


def _is_done(run: Path) -> bool:
    return read_summary(run)["epochs"] == load_preset("digits-half", {}).phases[1].schedule.epochs


def read_summary(run: Path, phase: str = "fine-tune") -> Dict[str, Any]:
    """What a run says of itself at its end."""
    return json.loads((run / phase / "summary.json").read_text(encoding="utf-8"))


def row_of(arguments: argparse.Namespace, variant: str, folder: Path) -> Dict[str, Any]:
    """One line of the table: accuracy after fine-tuning, and speed of the training before it, measured and estimated."""
    runs = [run_folder(folder, variant, seed) for seed in arguments.seeds]
    top1 = [read_summary(run)["val_top1"] for run in runs]
    config = study_config(arguments, variant, arguments.seeds[0], folder)
    estimate = estimate_config(config).estimate
    return {
        "variant": variant,
        "seeds": len(runs),
        "top1_before": statistics.mean(read_summary(run, ".")["val_top1"] for run in runs),
        "top1_mean": statistics.mean(top1),
        "top1_deviation": statistics.stdev(top1) if len(top1) > 1 else 0.0,
        "images_per_second": statistics.median(read_summary(run, ".")["images_per_second"] for run in runs),
        "ipu_images_per_second": estimate.images_per_second,
    }


def write_table(path: Path, rows: List[Dict[str, Any]]) -> None:
    """study.csv."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: List[Dict[str, Any]]) -> List[str]:
    """The table for docs/results.md."""
    headings = ("variant", "before fine-tuning, at its own size", "top-1 (%)", "training here (images/s)", "estimated on IPUs (images/s)",
                "Pareto front")  # fmt: skip
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for row in rows:
        accuracy = f"{row['top1_mean']:.2f} ± {row['top1_deviation']:.2f}"
        speeds = f"{row['images_per_second']:.0f} | {row['ipu_images_per_second']:,.0f}"
        lines.append(f"| {row['variant']} | {row['top1_before']:.2f} | {accuracy} | {speeds} | {'yes' if row['is_on_front'] else ''} |")
    return lines


def draw(path: Path, rows: List[Dict[str, Any]], title: str) -> None:
    """Accuracy over measured and over estimated training speed, with the Pareto front of each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    labels = {"images_per_second": "training images/s, measured here", "ipu_images_per_second": "training images/s, estimated on 4 IPUs"}
    for axes, (speed, label) in zip(figure.subplots(1, 2, sharey=True), labels.items()):
        for row in rows:
            axes.errorbar(row[speed], row["top1_mean"], yerr=row["top1_deviation"], fmt="o", capsize=3, label=row["variant"])
        front = [rows[index] for index in pareto_front(rows, speed, "top1_mean")]
        axes.plot([row[speed] for row in front], [row["top1_mean"] for row in front], "-", color="#888888", zorder=0, label="Pareto front")
        axes.set(xlabel=label, ylabel="top-1 after fine-tuning (%)")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
