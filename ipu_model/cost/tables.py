"""An estimate as text, in the order of PopVision's tabs: summary, insights, memory, operations."""

from __future__ import annotations

from typing import List, Sequence

from ipu_model.program.ops import Program

from .assumptions import listed
from .estimate import Estimate
from .insights import insights

KIB = 1024


def text_report(name: str, program: Program, estimate: Estimate, num_layers: int = 12) -> str:
    """The whole report."""
    parts = [
        summary(name, estimate),
        "Insights\n" + "\n".join(f"  {line}" for line in insights(program, estimate)),
        f"Memory at the worst point (KiB per tile, of {estimate.stages[0].limit_bytes_per_tile // KIB})\n" + memory_table(estimate),
        "Cycles of one micro batch (millions)\n" + cycles_table(estimate),
        "Costliest layers\n" + layers_table(estimate, num_layers),
        "Assumed constants\n" + assumptions_table(),
    ]
    return "\n\n".join(parts)


def summary(name: str, estimate: Estimate) -> str:
    """The figures that are asked for first."""
    milliseconds = 1000 * estimate.step_cycles / estimate.machine.ipu.clock_hz
    rows = [
        ["model", name],
        ["machine", f"{estimate.machine.name}: {estimate.machine.num_ipus} x {estimate.machine.ipu.name}, {estimate.num_ipus} used"],
        ["images/s", f"{estimate.images_per_second:,.0f}"],
        ["step", f"{estimate.step_cycles / 1e6:.1f} M cycles, {milliseconds:.2f} ms, {estimate.images_per_step} images"],
        ["bubble", f"{100 * estimate.timeline.bubble_fraction:.0f} % of the IPUs' time"],
        ["weight update", f"{100 * estimate.update_cycles / estimate.step_cycles:.1f} % of a step"],
        ["matrix units", f"{100 * estimate.matrix_utilisation:.1f} % of their peak"],
        ["fits", "yes" if estimate.fits else "no"],
    ]
    return table(rows)


def cycles_table(estimate: Estimate) -> str:
    """Cycles by IPU and kind, and each kind's share."""
    kinds = list((estimate.stages[0].forward).by_kind())
    header = ["IPU", *kinds, "transfer", "total", "forward"]
    rows = [header]
    totals = [0.0] * (len(kinds) + 1)
    for stage in estimate.stages:
        values = [*(stage.forward + stage.backward).by_kind().values(), stage.transfer_cycles]
        totals = [total + value for total, value in zip(totals, values)]
        rows.append([str(stage.stage), *(f"{v / 1e6:.2f}" for v in (*values, sum(values), stage.forward.cycles))])
    rows.append(["share", *(f"{100 * total / sum(totals):.0f} %" for total in totals)])
    return table(rows)


def memory_table(estimate: Estimate) -> str:
    """KiB per tile by IPU and kind."""
    kinds = list(estimate.stages[0].memory.by_kind())
    rows = [["IPU", *(kind.replace("_", " ") for kind in kinds), "total", ""]]
    for stage in estimate.stages:
        values = [*stage.memory.by_kind().values(), stage.memory.total]
        rows.append([str(stage.stage), *(f"{value / KIB:.0f}" for value in values), "" if stage.fits else "does not fit"])
    return table(rows)


def layers_table(estimate: Estimate, count: int) -> str:
    """The layers that take most cycles of a micro batch, forward and backward."""
    total = sum(cycles for _, cycles in estimate.layers)
    rows = [[path or "(model)", f"{cycles / 1e6:.3f} M", f"{100 * cycles / total:.1f} %"] for path, cycles in estimate.layers[:count]]
    return table(rows)


def assumptions_table() -> str:
    """Every assumed constant, and whether it is fitted."""
    return table([[name, f"{value:g}", "fitted" if is_fitted else ""] for name, (value, is_fitted) in listed().items()])


def comparison(names: Sequence[str], estimates: Sequence[Estimate]) -> str:
    """Estimates side by side."""
    rows = [["", "images/s", "IPUs", "step ms", "bubble", "peak KiB per tile", "fits"]]
    for name, estimate in zip(names, estimates):
        rows.append(
            [
                name,
                f"{estimate.images_per_second:,.0f}",
                str(estimate.num_ipus),
                f"{1000 * estimate.step_cycles / estimate.machine.ipu.clock_hz:.2f}",
                f"{100 * estimate.timeline.bubble_fraction:.0f} %",
                f"{max(stage.memory.total for stage in estimate.stages) / KIB:.0f}",
                "yes" if estimate.fits else "no",
            ]
        )
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    lines: List[str] = []
    for row in rows:
        is_pair = len(widths) == 2
        cells = [
            cell.ljust(width) if column == 0 or is_pair else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
