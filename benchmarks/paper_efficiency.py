"""The paper's figure from the cost model: accuracy against estimated training throughput of its thirty presets.

`python -m benchmarks.paper_efficiency --output runs/efficiency` writes a table (CSV) and a plot, with the published throughput where it is
known, and prints how much faster LN+PN at half resolution is than the G1 baseline at equal accuracy. Accuracies are the paper's (arXiv
2106.03640, front page), not those of this program.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import Dict, List, Tuple

import ipu_model  # noqa: F401
from assembly.estimates import estimate_config
from config import load_preset
from ipu_model.cost.hardware import MACHINES

SIZES = ("b0", "b1", "b2", "b3", "b4", "b5")
# Top-1 accuracy of the paper: native presets after fine-tuning; the baseline is G1-GN before it.
ACCURACY: Dict[str, Tuple[float, ...]] = {
    "baseline": (76.16, 78.23, 79.21, 80.65, 81.98, 82.83),
    "g1-gn": (79.10, 80.79, 81.43, 82.06, 82.89, 83.39),
    "g16-gn": (79.08, 80.81, 81.45, 82.31, 83.20, 83.95),
    "g16-gn-half": (77.85, 80.00, 80.83, 81.66, 82.73, 83.57),
    "g16-lnpn": (79.41, 81.34, 81.80, 82.62, 83.38, 84.04),
    "g16-lnpn-half": (78.30, 80.50, 81.17, 81.97, 82.98, 83.80),
}
PUBLISHED: Dict[str, Dict[str, int]] = {
    "b0": {"g1-gn": 26_380, "g16-gn": 29_565, "g16-gn-half": 47_240, "g16-lnpn": 24_780, "g16-lnpn-half": 43_210},
    "b2": {"g1-gn": 12_610, "g16-gn": 15_270, "g16-gn-half": 23_800, "g16-lnpn": 13_400, "g16-lnpn-half": 21_040},
    "b4": {"g1-gn": 2_735, "g16-gn": 4_690, "g16-gn-half": 9_170, "g16-lnpn": 4_160, "g16-lnpn-half": 8_040},
}
VARIANTS = ("g1-gn", "g16-gn", "g16-gn-half", "g16-lnpn", "g16-lnpn-half")


def main() -> None:
    """Write the table and the plot, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default="pod16", choices=sorted(MACHINES))
    parser.add_argument("--output", type=Path, default=Path("runs/efficiency"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    estimated = {(size, variant): images_per_second(size, variant, arguments.machine) for size in SIZES for variant in VARIANTS}
    write_table(estimated, arguments.output / "paper_efficiency.csv")
    draw(estimated, arguments.output / "paper_efficiency.png", arguments.machine)
    for size in SIZES:
        row = "  ".join(f"{variant} {estimated[size, variant]:8,.0f}" for variant in VARIANTS)
        print(f"{size.upper()}  {row}  images/s")
    baseline = curve(estimated, "g1-gn", "baseline")
    half = curve(estimated, "g16-lnpn-half", "g16-lnpn-half")
    accuracy, speed = baseline[-1]
    ratio = speed_at(half, accuracy) / speed
    print(f"at the accuracy of B5's G1 baseline ({accuracy} %), LN+PN at half resolution trains {ratio:.1f} x as fast (the paper: 7 x)")


def images_per_second(size: str, variant: str, machine: str) -> float:
    """Estimated training throughput of a preset."""
    return estimate_config(load_preset(f"efficientnet-{size}-{variant}-16ipu", {"machine": machine})).estimate.images_per_second


def curve(estimated: Dict[Tuple[str, str], float], variant: str, accuracies: str) -> List[Tuple[float, float]]:
    """(accuracy, images/s) of the six sizes."""
    return [(accuracy, estimated[size, variant]) for size, accuracy in zip(SIZES, ACCURACY[accuracies])]


def speed_at(points: List[Tuple[float, float]], accuracy: float) -> float:
    """Throughput at an accuracy, its logarithm interpolated between the two points around it."""
    for (low, fast), (high, slow) in zip(points, points[1:]):
        if low <= accuracy <= high:
            share = (accuracy - low) / (high - low)
            return math.exp((1 - share) * math.log(fast) + share * math.log(slow))
    raise ValueError(f"no two points around {accuracy} %")


def write_table(estimated: Dict[Tuple[str, str], float], path: Path) -> None:
    """One row for each preset."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "variant", "paper_top1", "estimated_images_per_second", "published_images_per_second"])
        for (size, variant), speed in estimated.items():
            accuracy = ACCURACY[variant][SIZES.index(size)]
            writer.writerow([size, variant, accuracy, round(speed), PUBLISHED.get(size, {}).get(variant, "")])


def draw(estimated: Dict[Tuple[str, str], float], path: Path, machine: str) -> None:
    """Accuracy against throughput: lines are estimates, crosses what was published."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    series = [("baseline", "g1-gn"), *((variant, variant) for variant in VARIANTS)]
    for accuracies, variant in series:
        points = curve(estimated, variant, accuracies)
        (line,) = axes.plot([speed for _, speed in points], [accuracy for accuracy, _ in points], marker="o", label=accuracies)
        known = [(PUBLISHED[size][variant], ACCURACY[accuracies][SIZES.index(size)]) for size in PUBLISHED]
        axes.plot(*zip(*known), linestyle="none", marker="x", color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlabel(f"training images/s on {machine} (estimated; x: published on pod16)")
    axes.set_ylabel("ImageNet top-1 of the paper (%)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
