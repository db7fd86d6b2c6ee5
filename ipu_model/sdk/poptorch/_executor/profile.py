"""Reports that `Options.enableProfiling` or autoReport.* in POPLAR_ENGINE_OPTIONS ask for: the cost model's, nothing is measured."""

from __future__ import annotations

from pathlib import Path

from ipu_model.runtime.tracing.estimation import write_report
from ipu_model.runtime.tracing.workload import Workload


def write_profile(workload: Workload) -> None:
    """Write the report of a model where its settings ask for one: `<folder>/<name>/report.html` and `estimate.json`."""
    said = workload.settings
    if said.report_folder is not None:
        write_report(workload, Path(said.report_folder) / (said.name or ("training" if workload.is_training else "inference")))
