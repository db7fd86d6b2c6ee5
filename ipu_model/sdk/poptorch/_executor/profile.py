"""Reports that `Options.enableProfiling` or autoReport.* in POPLAR_ENGINE_OPTIONS ask for: the cost model's, nothing is measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

from ipu_model.runtime.tracing.estimation import write_report

from ..options import Options


def report_folder(options: Options) -> Optional[Path]:
    """Where reports are wanted; None where they are not."""
    engine: Dict[str, Any] = json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS") or "{}")
    engine.update(options._Popart.options.get("engineOptions", {}))
    if str(engine.get("autoReport.all", "false")).lower() != "true":
        return None
    return Path(engine.get("autoReport.directory", "."))


def write_profile(executor: Any, args: Any, kwargs: Any) -> None:
    """Write the report of a compiled model where its options ask for one: `<directory>/<name>/report.html` and `estimate.json`."""
    folder = report_folder(executor._options)
    if folder is None:
        return
    kind = "training" if executor._training else "inference"
    name = executor._options.model_name if executor._options.exists("model_name") else kind
    write_report(executor, folder / name, args, kwargs)
