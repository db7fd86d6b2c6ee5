"""Accuracy and speed of one checkpoint over test resolutions: the table, the best size, the Pareto front, and their picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from .tables import make_folder, writing

COLUMNS: Sequence[str] = ("image_size", "top1", "top5", "loss", "images", "images_per_second", "is_best", "is_on_front")
PATIENCE = 2  # sizes in a row without a better accuracy after which the search for the best one stops
Row = Dict[str, Any]


def sweep_sizes(sizes: Sequence[int], evaluate_at: Callable[[int], Dict[str, float]]) -> List[Row]:
    """A row for each size, the best and the Pareto front marked."""
    return marked([{"image_size": size, **evaluate_at(size)} for size in sizes])


def find_best_size(start: int, step: int, evaluate_at: Callable[[int], Dict[str, float]]) -> List[Row]:
    """Rows of the sizes start, start + step, ...: until top-1 has not risen for two of them."""
    rows = [{"image_size": start, **evaluate_at(start)}]
    while len(rows) - 1 - best_index(rows) < PATIENCE:
        size = rows[-1]["image_size"] + step
        rows.append({"image_size": size, **evaluate_at(size)})
    return marked(rows)


def best_index(rows: Sequence[Row]) -> int:
    """Number of the row with the highest top-1, the smallest size of equal ones."""
    return max(range(len(rows)), key=lambda index: (rows[index]["top1"], -rows[index]["image_size"]))


def pareto_front(rows: Sequence[Row], speed: str = "images_per_second", quality: str = "top1") -> List[int]:
    """Numbers of the rows that no other row beats in one of speed and quality without losing in the other, the fastest first."""

    def is_beaten(row: Row) -> bool:
        return any(
            other[speed] >= row[speed] and other[quality] >= row[quality] and (other[speed], other[quality]) != (row[speed], row[quality])
            for other in rows
        )

    return sorted((index for index, row in enumerate(rows) if not is_beaten(row)), key=lambda index: -rows[index][speed])


def marked(rows: Sequence[Row]) -> List[Row]:
    """The rows with `is_best` and `is_on_front`."""
    best, front = best_index(rows), pareto_front(rows)
    return [{**row, "is_best": int(index == best), "is_on_front": int(index in front)} for index, row in enumerate(rows)]


def write_sweep(folder: Path, rows: Sequence[Row], title: str) -> List[str]:
    """Write image-sizes.csv and image-sizes.png; gives the lines to print."""
    make_folder(folder)
    with writing(folder / "image-sizes.csv", "w") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    draw_sweep(folder / "image-sizes.png", rows, title)
    lines = [f"{'size':>6} {'top-1 %':>8} {'top-5 %':>8} {'loss':>8} {'images/s':>9}"]
    for row in rows:
        mark = " best" if row["is_best"] else " front" if row["is_on_front"] else ""
        lines.append(
            f"{row['image_size']:>6} {row['top1']:>8.2f} {row['top5']:>8.2f} {row['loss']:>8.4f} {row['images_per_second']:>9.0f}{mark}"
        )
    best = rows[best_index(rows)]
    return [*lines, f"best size   {best['image_size']} pixels, top-1 {best['top1']:.2f} %", f"written to  {folder}/image-sizes.csv, .png"]


def draw_sweep(path: Path, rows: Sequence[Row], title: str) -> None:
    """Accuracy over size, and accuracy over speed with the Pareto front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    by_size, by_speed = figure.subplots(1, 2)
    best = rows[best_index(rows)]
    by_size.plot([row["image_size"] for row in rows], [row["top1"] for row in rows], "o-", color="#4477aa")
    by_size.plot(best["image_size"], best["top1"], "o", ms=10, mfc="none", color="#aa3377", label=f"best: {best['image_size']} pixels")
    by_size.set(xlabel="test image size (pixels)", ylabel="top-1 (%)")
    by_size.legend()
    front = [rows[index] for index in pareto_front(rows)]
    by_speed.plot([row["images_per_second"] for row in rows], [row["top1"] for row in rows], "o", color="#4477aa")
    by_speed.plot([row["images_per_second"] for row in front], [row["top1"] for row in front], "-", color="#aa3377", label="Pareto front")
    by_speed.set(xlabel="images/s, measured here", ylabel="top-1 (%)")
    by_speed.legend()
    for axes in (by_size, by_speed):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
