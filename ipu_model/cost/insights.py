"""What stands out in an estimate, in words."""

from __future__ import annotations

from typing import List

from ipu_model.program.ops import Program

from .confidence import extrapolations
from .estimate import Estimate, estimate_program
from .splits import suggestions, with_micro_batch


def insights(program: Program, estimate: Estimate) -> List[str]:
    """Sentences: what does not fit and what would help, imbalance, ramp, overhead, host."""
    lines: List[str] = []
    for ipu in estimate.ipus:
        if not ipu.fits:
            over = ipu.memory.total - ipu.limit_bytes_per_tile
            kind = max(ipu.memory.by_kind().items(), key=lambda item: item[1])[0].replace("_", " ")
            lines.append(f"IPU {ipu.ipu} does not fit: {over / 1024:.0f} KiB per tile too much, most of it {kind}.")
    lines += [f"It would fit with {change}." for change in suggestions(program, estimate)]
    if estimate.num_ipus > estimate.machine.num_ipus:
        lines.append(f"{estimate.num_ipus} IPUs are needed, {estimate.machine.name} has {estimate.machine.num_ipus}.")
    cycles = [ipu.cycles for ipu in estimate.ipus]
    if len(cycles) > 1 and max(cycles) > 1.15 * sum(cycles) / len(cycles):
        slowest = estimate.ipus[cycles.index(max(cycles))].ipu
        lines.append(
            f"The pipeline is out of balance: IPU {slowest} takes {max(cycles) / (sum(cycles) / len(cycles)):.2f} x the mean; "
            "try --pipeline-splits auto."
        )
    ramp = estimate.timeline.ramp / estimate.step_cycles
    if ramp > 0.15:
        lines.append(f"Filling and draining the pipeline takes {100 * ramp:.0f} % of a step: more gradient accumulation lowers it.")
    overhead = sum((stage.forward + stage.backward).overhead for stage in estimate.stages) / sum(cycles)
    if overhead > 0.25:
        larger = estimate_program(with_micro_batch(program, program.micro_batch_size + 1), estimate.settings, estimate.machine)
        advice = "a larger micro batch spreads them" if larger.memory_fits else "no larger micro batch fits that would spread them"
        lines.append(f"{100 * overhead:.0f} % of the cycles are fixed costs of compute sets: {advice}.")
    host = estimate.stages[0].transfer_cycles / max(estimate.stages[0].cycles, 1.0)
    if host > 0.1:
        lines.append(f"Host input is {100 * host:.0f} % of IPU 0's time: 8-bit I/O or I/O tiles (numIOTiles) take it out of the way.")
    return [*lines, *extrapolations(program, estimate)] or ["Nothing stands out."]
