"""What is said of an estimate: figures and tables as words, made once, for the text and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

from ipu_model.program.ops import Program

from .assumptions import listed
from .confidence import expected_error
from .estimate import Estimate, IpuEstimate
from .insights import insights
from .splits import largest_micro_batch

KIB = 1024


@dataclass(frozen=True)
class Section:
    """One part of a report, in the order of PopVision's tabs.

    Attributes:
        key: a word by which a page finds what it draws there.
        rows: of the table; a single column is a list of sentences.
        header: names of the columns; empty where the first column names the row.
    """

    key: str
    heading: str
    rows: Tuple[Tuple[str, ...], ...]
    header: Tuple[str, ...] = ()
    note: str = ""


def report(name: str, program: Program, estimate: Estimate) -> Tuple[Section, ...]:
    """All that is said of one program."""
    limit = estimate.ipus[0].limit_bytes_per_tile // KIB
    return (
        Section("summary", "Summary", _summary(name, program, estimate)),
        Section("insights", "Insights", tuple((line,) for line in insights(program, estimate))),
        _section("memory", "Memory at the worst point", _memory(estimate), f"KiB per tile, of {limit}."),
        _section("cycles", "Cycles of one micro batch", _cycles(estimate), "Millions."),
        _section("layers", "Costliest layers", _layers(estimate), "Million cycles of one micro batch."),
        _section("assumptions", "Assumed constants", _assumptions()),
    )


def comparison_section(names: Sequence[str], estimates: Sequence[Estimate]) -> Section:
    """Estimates side by side."""
    header = ("", "images/s", "IPUs", "step ms", "bubble", "peak KiB per tile", "fits")
    rows = [
        (
            name,
            f"{estimate.images_per_second:,.0f}",
            str(estimate.num_ipus),
            f"{1000 * estimate.step_cycles / estimate.machine.ipu.clock_hz:.2f}",
            f"{100 * estimate.timeline.bubble_fraction:.0f} %",
            f"{max(ipu.memory.total for ipu in estimate.ipus) / KIB:.0f}",
            "yes" if estimate.fits else "no",
        )
        for name, estimate in zip(names, estimates)
    ]
    return _section("comparison", "Comparison", [header, *rows])


def ipu_name(ipu: IpuEstimate) -> str:
    """An IPU with the stages that it runs, where they are not one of its own number."""
    stages = "" if ipu.stages == (ipu.ipu,) else f" (stage {', '.join(map(str, ipu.stages))})"
    return f"IPU {ipu.ipu}{stages}"


def _section(key: str, heading: str, rows: Sequence[Sequence[str]], note: str = "") -> Section:
    return Section(key, heading, tuple(tuple(row) for row in rows[1:]), tuple(rows[0]), note)


def _summary(name: str, program: Program, estimate: Estimate) -> Tuple[Tuple[str, ...], ...]:
    """The figures that are asked for first."""
    milliseconds = 1000 * estimate.step_cycles / estimate.machine.ipu.clock_hz
    return (
        ("model", name),
        ("machine", f"{estimate.machine.name}: {estimate.machine.num_ipus} x {estimate.machine.ipu.name}, {estimate.num_ipus} used"),
        ("images/s", f"{estimate.images_per_second:,.0f}, +-{100 * expected_error():.0f} %"),
        ("step", f"{estimate.step_cycles / 1e6:.1f} M cycles, {milliseconds:.2f} ms, {estimate.images_per_step} images"),
        ("bubble", f"{100 * estimate.timeline.bubble_fraction:.0f} % of the IPUs' time"),
        ("weight update", f"{100 * estimate.update_cycles / estimate.step_cycles:.1f} % of a step"),
        ("matrix units", f"{100 * estimate.matrix_utilisation:.1f} % of their peak"),
        ("fits", _fit(estimate)),
        ("largest micro batch", _largest(program, estimate)),
    )


def _fit(estimate: Estimate) -> str:
    """By how much the fullest IPU does or does not."""
    fullest = max(estimate.ipus, key=lambda ipu: ipu.memory.total)
    left = (fullest.limit_bytes_per_tile - fullest.memory.total) / KIB
    margin = f"{left:.0f} KiB per tile left" if left >= 0 else f"{-left:.0f} KiB per tile too much"
    return f"{'yes' if estimate.fits else 'no'}: {margin} on IPU {fullest.ipu}"


def _largest(program: Program, estimate: Estimate) -> str:
    largest = largest_micro_batch(program, estimate.settings, estimate.machine)
    return f"{largest} fits (now {program.micro_batch_size})" if largest else "not even 1 fits"


def _cycles(estimate: Estimate) -> List[Sequence[str]]:
    """Cycles by stage and kind, and each kind's share."""
    kinds = list(estimate.stages[0].forward.by_kind())
    rows: List[Sequence[str]] = [("stage", "IPU", *kinds, "transfer", "total", "forward")]
    totals = [0.0] * (len(kinds) + 1)
    for stage in estimate.stages:
        values = [*(stage.forward + stage.backward).by_kind().values(), stage.transfer_cycles]
        totals = [total + value for total, value in zip(totals, values)]
        rows.append([str(stage.stage), str(stage.ipu), *(f"{v / 1e6:.2f}" for v in (*values, sum(values), stage.forward.cycles))])
    rows.append(["share", "", *(f"{100 * total / sum(totals):.0f} %" for total in totals), "", ""])
    return rows


def _memory(estimate: Estimate) -> List[Sequence[str]]:
    """KiB per tile by IPU and kind."""
    kinds = list(estimate.ipus[0].memory.by_kind())
    rows: List[Sequence[str]] = [("", *(kind.replace("_", " ") for kind in kinds), "total", "")]
    for ipu in estimate.ipus:
        values = [*ipu.memory.by_kind().values(), ipu.memory.total]
        rows.append([ipu_name(ipu), *(f"{value / KIB:.0f}" for value in values), "" if ipu.fits else "does not fit"])
    return rows


_SHOWN_LAYERS = 20


def _layers(estimate: Estimate) -> List[Sequence[str]]:
    """The layers that take most cycles of a micro batch, and all others together."""
    total = sum(layer.cycles for layer in estimate.layers) or 1.0
    rows: List[Sequence[str]] = [("layer", "kind", "method", "forward", "again", "gradient", "weights", "total", "share")]
    shown, others = estimate.layers[:_SHOWN_LAYERS], estimate.layers[_SHOWN_LAYERS:]
    for layer in shown:
        parts = (layer.forward, layer.recomputation, layer.gradient, layer.weight_gradient, layer.cycles)
        rows.append((layer.path, layer.kind, "+".join(layer.methods), *_millions(parts), f"{100 * layer.cycles / total:.1f} %"))
    rest = sum(layer.cycles for layer in others)
    return (
        [*rows, (f"{len(others)} others", "", "", "", "", "", "", *_millions((rest,)), f"{100 * rest / total:.1f} %")] if others else rows
    )


def _millions(cycles: Sequence[float]) -> List[str]:
    return [f"{value / 1e6:.3f}" for value in cycles]


def _assumptions() -> List[Sequence[str]]:
    """Every assumed constant with what it stands for."""
    return [("name", "value", ""), *((each.name, each.text, f"{each.meaning} Source: {each.source}.") for each in listed())]
