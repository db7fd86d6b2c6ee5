"""curves.png: loss, accuracy and learning rate over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

_COLOURS = {"training": "#4477aa", "current": "#ccbb44", "averaged": "#aa3377"}


def draw_curves(path: Path, training: Sequence[Dict[str, Any]], validation: Sequence[Dict[str, Any]], title: str) -> None:
    """Draw three panels from the rows of training.csv and validation.csv."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    loss, accuracy, rate = figure.subplots(1, 3)
    _panel(loss, training, validation, "loss", "loss", "loss")
    _panel(accuracy, training, validation, "accuracy", "top1", "accuracy, top-1 (%)")
    rate.plot([row["epoch"] for row in training], [row["learning_rate"] for row in training], color=_COLOURS["training"])
    rate.set_ylabel("learning rate")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    for axes in (loss, accuracy):
        axes.legend()
    figure.savefig(path, dpi=120)


def _panel(axes: Any, training: Sequence[Dict[str, Any]], validation: Sequence[Dict[str, Any]], column: str, name: str, label: str) -> None:
    axes.plot([row["epoch"] for row in training], [row[column] for row in training], label="training", color=_COLOURS["training"])
    kinds: List[str] = sorted({row["weights"] for row in validation})
    for kind in kinds:
        rows = [row for row in validation if row["weights"] == kind]
        axes.plot(
            [row["epoch"] for row in rows],
            [row[name] for row in rows],
            "o-",
            ms=3,
            label=f"validation, {kind} weights",
            color=_COLOURS[kind],
        )
    axes.set_ylabel(label)
