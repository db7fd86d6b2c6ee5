"""The IPU Model: PopTorch's API on plain PyTorch, for machines without an IPU.

Importing this package appends its `sdk` folder to the end of the module search path. Where the Poplar SDK is installed its own
`poptorch` is found first and the IPU Model stays silent; elsewhere `import poptorch` finds the one in `sdk`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Tuple

_SDK = str(Path(__file__).parent / "sdk")
if _SDK not in sys.path:
    sys.path.append(_SDK)


def estimate(executor: object, *args: Any, machine: str = "pod16", **kwargs: Any) -> Any:
    """What a wrapped model would cost on IPUs, for inputs of combined-batch shape: an `ipu_model.cost.estimate.Estimate`."""
    from .runtime.tracing.estimation import estimate as estimate_executor  # torch is imported only where it is needed

    return estimate_executor(executor, *args, machine=machine, **kwargs)


def trace(executor: object, *args: Any, **kwargs: Any) -> Tuple[Any, Any]:
    """A wrapped model as the cost model sees it: records of its operations, and its settings (`ipu_model.program`, `ipu_model.cost`)."""
    from .runtime.tracing.estimation import program_of, settings_of
    from .runtime.tracing.workload import workload_of

    workload = workload_of(executor, args, kwargs)
    return program_of(workload), settings_of(workload)


def register_custom_op(name: str, domain: str, implementation: Callable[..., Any]) -> None:
    """Run `implementation(inputs, attributes)` where a program calls the custom operator `domain.name` with `poptorch.custom_op`.

    It is written in torch operations and returns a tensor or a list of tensors.
    """
    from .runtime.forward.custom_ops import register_custom_op as register  # torch is imported only where it is needed

    register(name, domain, implementation)
