"""Reports as text."""

from __future__ import annotations

from typing import List, Sequence

from ipu_model.program.ops import Program

from .estimate import Estimate
from .report import Section, comparison_section, report


def text_report(name: str, program: Program, estimate: Estimate) -> str:
    """The whole report."""
    return "\n\n".join(_text(section) for section in report(name, program, estimate))


def comparison(names: Sequence[str], estimates: Sequence[Estimate]) -> str:
    """Estimates side by side."""
    section = comparison_section(names, estimates)
    return table([section.header, *section.rows])


def _text(section: Section) -> str:
    heading = f"{section.heading} ({section.note.rstrip('.')})" if section.note else section.heading
    return heading + "\n" + table([section.header, *section.rows] if section.header else section.rows)


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
