"""An estimate as one self-contained HTML page: tables and charts (inline SVG), nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import List, Mapping, Sequence, Tuple

from ipu_model.program.ops import Program

from .estimate import Estimate, pass_cycles
from .report import KIB, Section, comparison_section, ipu_name, report
from .schedule import passes

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
    """The report of one program: summary, insights, memory, liveness, cycles, execution trace, layers, assumptions."""
    charts = {"memory": _memory_chart(estimate) + _liveness_chart(estimate), "cycles": _cycles_chart(estimate) + _trace_chart(estimate)}
    sections = [(section, charts.get(section.key, "")) for section in report(name, program, estimate)]
    return _page(f"{name} on {estimate.machine.name}", sections)


def comparison_page(names: Sequence[str], estimates: Sequence[Estimate]) -> str:
    """Several estimates beside one another."""
    chart = _bars([(name, [("images/s", e.images_per_second)]) for name, e in zip(names, estimates)], "images/s")
    return _page("Comparison", [(comparison_section(names, estimates), chart)])


def _page(title: str, sections: Sequence[Tuple[Section, str]]) -> str:
    body = "".join(
        f'<section id="{section.key}"><h2>{section.heading}</h2>{chart}{_table(section)}</section>' for section, chart in sections
    )
    note = "<p>Estimated by the IPU Model's cost model: no IPU has run this program.</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{note}{body}</body></html>\n"
    )


def _table(section: Section) -> str:
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    if all(len(row) == 1 for row in section.rows):
        return note + "<ul>" + "".join(f"<li>{escape(row[0])}</li>" for row in section.rows) + "</ul>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows)
    return f"{note}<table><tr>{head}</tr>{body}</table>"


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
        (f"{ipu_name(ipu)}{'' if ipu.fits else ': does not fit'}", [(k, v / KIB) for k, v in ipu.memory.by_kind().items()])
        for ipu in estimate.ipus
    ]
    limit = estimate.ipus[0].limit_bytes_per_tile / KIB
    return f"<p>KiB per tile at the worst point of the schedule, against {limit:.0f}.</p>" + _bars(rows, "KiB", limit)


def _liveness_chart(estimate: Estimate) -> str:
    """Memory of each IPU while it runs one micro batch, forward and then backward."""
    left, height = 50, 260
    limit = estimate.ipus[0].limit_bytes_per_tile
    top = max([limit, *(max(ipu.liveness) for ipu in estimate.ipus)]) * 1.05
    shapes = [_rule(left, height - limit / top * height, "#b00020", f"{limit // KIB} KiB")]
    colours = {ipu_name(ipu): colour for ipu, colour in zip(estimate.ipus, COLOURS * 8)}
    for ipu in estimate.ipus:
        last = max(len(ipu.liveness) - 1, 1)
        points = " ".join(
            f"{left + number / last * (WIDTH - left):.1f},{height - value / top * height:.1f}" for number, value in enumerate(ipu.liveness)
        )
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colours[ipu_name(ipu)]}" stroke-width="1.6"/>')
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
        rows.append((f"stage {stage.stage} on IPU {stage.ipu}", [*parts, ("transfer", stage.transfer_cycles / 1e6)]))
    return "<p>Million cycles of one micro batch.</p>" + _bars(rows, "M cycles")


_DRAWN_MICRO_BATCHES = 12


def _trace_chart(estimate: Estimate) -> str:
    """The pipeline as a time chart: forward and backward passes of the first micro batches on each stage."""
    stages = estimate.stages
    count = min(estimate.settings.num_micro_batches(estimate.is_training), _DRAWN_MICRO_BATCHES)
    drawn = passes(*pass_cycles(stages), count, estimate.settings.schedule)
    end, left, height = max(one.end for one in drawn), 60, 30
    scale = (WIDTH - left) / end
    shapes = [f'<text x="0" y="{stage.stage * height + 19}">stage {stage.stage}</text>' for stage in stages]
    for one in drawn:
        x, width = left + one.begin * scale, (one.end - one.begin) * scale
        kind = "forward" if one.is_forward else "backward"
        shapes.append(
            f'<rect x="{x:.1f}" y="{one.stage * height + 3}" width="{max(width - 0.5, 0.5):.1f}" height="{height - 6}" '
            f'fill="{COLOURS[0] if one.is_forward else COLOURS[1]}"><title>micro batch {one.micro_batch}, {kind}</title></rect>'
        )
        if width > 16:
            shapes.append(
                f'<text x="{x + width / 2:.1f}" y="{one.stage * height + 19}" text-anchor="middle" fill="white">{one.micro_batch}</text>'
            )
    bottom = len(stages) * height
    legend = _legend({"forward": COLOURS[0], "backward (with recomputation)": COLOURS[1]}, bottom + 18)
    note = f"<p>The first {count} micro batches in the {estimate.settings.schedule} schedule, which is the one that is costed.</p>"
    return f'{note}<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img">{"".join(shapes)}{legend}</svg>'
