"""An estimate as one self-contained HTML page: tables and charts (inline SVG), nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import List, Mapping, Sequence, Tuple

from ipu_model.program.ops import Program

from .assumptions import listed
from .estimate import Estimate
from .insights import insights
from .schedule import spans

KIB = 1024
COLOURS: Tuple[str, ...] = ("#3b6ea5", "#e08e45", "#5aa469", "#b5546c", "#7d6bb0", "#8c8c8c", "#c2a83e", "#4aa3a2")
WIDTH = 860

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } td, th { padding: 2px 10px; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f6f6f6; }
svg { max-width: 100%; height: auto; } text { font: 12px system-ui, sans-serif; } .bad { color: #b00020; font-weight: bold; }
"""


def report_page(name: str, program: Program, estimate: Estimate) -> str:
    """The report of one program: summary, insights, memory, liveness, operations, execution trace, assumptions."""
    sections = [
        ("Summary", _pairs(_summary(estimate))),
        ("Insights", "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in insights(program, estimate)) + "</ul>"),
        ("Memory", _memory_chart(estimate)),
        ("Liveness", _liveness_chart(estimate)),
        ("Operations", _cycles_chart(estimate) + _layers(estimate)),
        ("Execution trace", _trace_chart(estimate)),
        ("Assumed constants", _pairs([(key, f"{value:g}{' (fitted)' if fitted else ''}") for key, (value, fitted) in listed().items()])),
    ]
    return _page(f"{name} on {estimate.machine.name}", sections)


def comparison_page(names: Sequence[str], estimates: Sequence[Estimate]) -> str:
    """Several estimates beside one another."""
    rows = [
        [name, f"{e.images_per_second:,.0f}", str(e.num_ipus), f"{100 * e.timeline.bubble_fraction:.0f} %", "yes" if e.fits else "no"]
        for name, e in zip(names, estimates)
    ]
    chart = _bars([(name, [("images/s", e.images_per_second)]) for name, e in zip(names, estimates)], "images/s")
    return _page("Comparison", [("Throughput", chart), ("Compare", _table(["", "images/s", "IPUs", "bubble", "fits"], rows))])


def _page(title: str, sections: Sequence[Tuple[str, str]]) -> str:
    body = "".join(
        f'<section id="{heading.lower().replace(" ", "-")}"><h2>{heading}</h2>{content}</section>' for heading, content in sections
    )
    note = "<p>Estimated by the IPU Model's cost model: no IPU has run this program.</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{note}{body}</body></html>\n"
    )


def _summary(estimate: Estimate) -> List[Tuple[str, str]]:
    return [
        ("images/s", f"{estimate.images_per_second:,.0f}"),
        ("step", f"{1000 * estimate.step_cycles / estimate.machine.ipu.clock_hz:.2f} ms, {estimate.images_per_step} images"),
        ("IPUs", f"{estimate.num_ipus} of {estimate.machine.num_ipus} ({estimate.machine.ipu.name})"),
        ("bubble", f"{100 * estimate.timeline.bubble_fraction:.0f} %"),
        ("matrix units", f"{100 * estimate.matrix_utilisation:.1f} % of their peak"),
        ("fits", "yes" if estimate.fits else "no"),
    ]


def _pairs(rows: Sequence[Tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in rows) + "</table>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(rows: Sequence[Tuple[str, Sequence[Tuple[str, float]]]], unit: str, limit: float = 0.0) -> str:
    """Stacked horizontal bars with a legend, and a line at the limit."""
    left, height = 230, 26
    longest = max([limit, *(sum(value for _, value in parts) for _, parts in rows)]) or 1.0
    scale = (WIDTH - left - 90) / longest
    kinds = list(dict.fromkeys(kind for _, parts in rows for kind, _ in parts))
    colour = dict(zip(kinds, COLOURS * (len(kinds) // len(COLOURS) + 1)))
    shapes: List[str] = []
    for number, (name, parts) in enumerate(rows):
        x, y = float(left), number * height
        shapes.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(name[-36:])}</text>')
        for kind, value in parts:
            tip = f"{kind}: {value:,.1f} {unit}"
            shapes.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{value * scale:.1f}" height="{height - 6}" fill="{colour[kind]}">'
                f"<title>{escape(tip)}</title></rect>"
            )
            x += value * scale
        total = sum(value for _, value in parts)
        shapes.append(f'<text x="{x + 6:.1f}" y="{y + 16}">{total:,.{0 if longest >= 100 else 2}f}</text>')
    bottom = len(rows) * height
    if limit:
        x = left + limit * scale
        shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}" stroke="#b00020" stroke-dasharray="4 3"/>')
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img">{"".join(shapes)}{_legend(colour, bottom + 18)}</svg>'


def _legend(colours: Mapping[str, str], y: float) -> str:
    step = (WIDTH - 10) / max(len(colours), 1)
    return "".join(
        f'<rect x="{number * step:.0f}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{number * step + 14:.0f}" y="{y}">{escape(kind.replace("_", " "))}</text>'
        for number, (kind, colour) in enumerate(colours.items())
    )


def _memory_chart(estimate: Estimate) -> str:
    rows = [
        (f"IPU {stage.stage}{'' if stage.fits else ' (does not fit)'}", [(k, v / KIB) for k, v in stage.memory.by_kind().items()])
        for stage in estimate.stages
    ]
    limit = estimate.stages[0].limit_bytes_per_tile / KIB
    return f"<p>KiB per tile at the worst point of the schedule, against {limit:.0f}.</p>" + _bars(rows, "KiB", limit)


def _liveness_chart(estimate: Estimate) -> str:
    """Memory of each IPU while it runs one micro batch, forward and then backward."""
    left, height = 50, 260
    limit = estimate.stages[0].limit_bytes_per_tile
    top = max([limit, *(max(stage.liveness) for stage in estimate.stages)]) * 1.05
    shapes = [_rule(left, height - limit / top * height, "#b00020", f"{limit // KIB} KiB")]
    colours = {f"IPU {stage.stage}": COLOURS[stage.stage % len(COLOURS)] for stage in estimate.stages}
    for stage in estimate.stages:
        last = max(len(stage.liveness) - 1, 1)
        points = " ".join(
            f"{left + number / last * (WIDTH - left):.1f},{height - value / top * height:.1f}"
            for number, value in enumerate(stage.liveness)
        )
        colour = colours[f"IPU {stage.stage}"]
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    note = "<p>KiB per tile over one micro batch: operations forward, then backward.</p>"
    return f'{note}<svg viewBox="0 0 {WIDTH} {height + 30}" role="img">{"".join(shapes)}{_legend(colours, height + 18)}</svg>'


def _rule(left: float, y: float, colour: str, label: str) -> str:
    return (
        f'<line x1="{left}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-dasharray="4 3"/>'
        f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _cycles_chart(estimate: Estimate) -> str:
    rows = []
    for stage in estimate.stages:
        parts = [(kind, value / 1e6) for kind, value in (stage.forward + stage.backward).by_kind().items()]
        rows.append((f"IPU {stage.stage}", [*parts, ("transfer", stage.transfer_cycles / 1e6)]))
    return "<p>Million cycles of one micro batch.</p>" + _bars(rows, "M cycles")


def _layers(estimate: Estimate, count: int = 20) -> str:
    total = sum(cycles for _, cycles in estimate.layers) or 1.0
    rows = [[path or "(model)", f"{cycles / 1e6:.3f}", f"{100 * cycles / total:.1f} %"] for path, cycles in estimate.layers[:count]]
    return "<p>Costliest layers.</p>" + _table(["layer", "M cycles", "share"], rows)


_DRAWN_MICRO_BATCHES = 12


def _trace_chart(estimate: Estimate) -> str:
    """The pipeline as a time chart: forward and backward passes of the first micro batches on each stage."""
    stages = estimate.stages
    forward = [stage.forward.cycles + stage.transfer_cycles for stage in stages]
    backward = [stage.backward.cycles for stage in stages]
    drawn = spans(forward, backward, min(estimate.settings.gradient_accumulation, _DRAWN_MICRO_BATCHES))
    end, left, height = max(span.end for span in drawn), 60, 30
    scale = (WIDTH - left) / end
    shapes = [f'<text x="0" y="{stage.stage * height + 19}">IPU {stage.stage}</text>' for stage in stages]
    for span in drawn:
        x, width = left + span.begin * scale, (span.end - span.begin) * scale
        kind = "forward" if span.is_forward else "backward"
        shapes.append(
            f'<rect x="{x:.1f}" y="{span.stage * height + 3}" width="{max(width - 0.5, 0.5):.1f}" height="{height - 6}" '
            f'fill="{COLOURS[0] if span.is_forward else COLOURS[1]}"><title>micro batch {span.micro_batch}, {kind}</title></rect>'
        )
        if width > 16:
            shapes.append(
                f'<text x="{x + width / 2:.1f}" y="{span.stage * height + 19}" text-anchor="middle" fill="white">{span.micro_batch}</text>'
            )
    bottom = len(stages) * height
    legend = _legend({"forward": COLOURS[0], "backward (with recomputation)": COLOURS[1]}, bottom + 18)
    count = min(estimate.settings.gradient_accumulation, _DRAWN_MICRO_BATCHES)
    note = f"<p>The first {count} micro batches, each pass as soon as it can run.</p>"
    return f'{note}<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img">{"".join(shapes)}{legend}</svg>'
