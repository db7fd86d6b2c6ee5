"""The architecture as a test: who may import whom (docs/design.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Set, Tuple

import pytest
import source_trees
from source_trees import APPLICATION, ENTRY_POINTS, POPTORCH, PRODUCT, ROOT, SDK, Import, file_of, imports, name_of

OURS = ("config", "cli", *APPLICATION, "assembly", "ipu_model", *SDK, "benchmarks", "examples", *(name[:-3] for name in ENTRY_POINTS))

# Who may import whom: a room, and the names (of this project's modules, and of torch) that it may import besides its own.
TABLE = {
    "config": (),
    "cli": ("config",),
    "models": ("config", "torch", *SDK),
    "datasets": ("config", "torch", *SDK),
    "ipu_options": ("config", "torch", *SDK),
    "training": ("config", "torch", *SDK),
    "assembly": ("config", *APPLICATION, "torch", *SDK, "ipu_model", "ipu_model.program", "ipu_model.cost"),
    "train.py": ("config", "cli", "assembly", "training", "ipu_model", "poptorch.Error"),
    "validate.py": ("config", "cli", "assembly", "training", "ipu_model", "poptorch.Error"),
    "estimate.py": ("config", "cli", "assembly", "training", "ipu_model", "ipu_model.cost", "poptorch.Error"),
    "summary.py": ("config", "cli", "assembly", "training", "ipu_model", "ipu_model.cost", "poptorch.Error"),
    "benchmarks": tuple(name for name in OURS if f"{name}.py" not in ENTRY_POINTS) + ("torch", "ipu_model."),
    "examples": ("torch", *SDK),
    "ipu_model/program": (),
    "ipu_model/cost": ("ipu_model.program",),
    "ipu_model/runtime": ("torch", "ipu_model.program"),
    "ipu_model/runtime/tracing": ("torch", "ipu_model.program", "ipu_model.cost", "ipu_model.runtime."),
    "ipu_model/launcher": ("torch",),
    "ipu_model/runner": ("ipu_model", "ipu_model.runtime.tracebacks", "ipu_model.launcher.python_path"),
    "ipu_model/sdk": ("torch", "ipu_model.program", "ipu_model.runtime", *SDK),
}
ASSEMBLY_FILES_THAT_KNOW_THE_IPU_MODEL = {"tracing.py", "splits.py", "estimates.py"}
# From the bottom up: a file may import from its own level's room and from what stands before it.
ORDERS = {
    "ipu_model/runtime": (
        ("errors", "files", "structures", "operators", "rounding"), ("forward",), ("graph",), ("capture", "instances"), ("gradients",),
        ("device",), ("tracing",),
    ),
    POPTORCH: (
        ("enums", "_hardware", "_logging", "profiling", "testing"), ("_options", "_placement"), ("_forward",), ("ops", "options", "optim"),
        ("_executor", "_data"),
        ("_poplar_executor",), ("_impl", "_args_parser", "_utils", "poptorch_core"), ("__init__",),
    ),
}  # fmt: skip
FREE_OF_TORCH = (
    "models/architectures.py", "training/schedule.py", "ipu_model/poprun.py", "ipu_model/__main__.py", "ipu_model/runtime/tracebacks.py",
)  # fmt: skip
# Faces mirror PopTorch's signatures: as long, and with as many parameters, as PopTorch's.


def is_within(name: str, allowed: str) -> bool:
    """`ipu_model` allows that name alone, `ipu_model.cost` all below it, `ipu_model.` all below ipu_model."""
    if allowed == "ipu_model":
        return name.count(".") <= 1 and not file_of(name).count("/") > 1
    return name == allowed or name.startswith(allowed if allowed.endswith(".") else f"{allowed}.")


# ---- who imports whom


@pytest.mark.parametrize("room", sorted(TABLE))
def test_imports_follow_the_table(room):
    place = ROOT / room
    wrong = []
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        inner = max((other for other in TABLE if name_of(path) == other or name_of(path).startswith(f"{other}/")), key=len)
        if inner != room:
            continue
        for name, _ in imports(path):
            top = name.split(".")[0]
            is_own = file_of(name).startswith(f"{room}/")
            if (top in OURS or top == "torch") and not is_own and not any(is_within(name, allowed) for allowed in TABLE[room]):
                wrong.append(f"{name_of(path)} imports {name}")
    assert not wrong


def test_only_three_files_of_assembly_know_the_ipu_model():
    knowing = {path.name for path in (ROOT / "assembly").glob("*.py") if any(name.startswith("ipu_model") for name, _ in imports(path))}
    assert knowing <= ASSEMBLY_FILES_THAT_KNOW_THE_IPU_MODEL


@pytest.mark.parametrize("house", sorted(ORDERS))
def test_arrows_point_downwards(house):
    """Late imports included: the floors of a house, from the bottom up."""
    floor = {room: number for number, rooms in enumerate(ORDERS[house]) for room in rooms}

    def floor_of(name: str) -> int:
        return floor[Path(name).relative_to(house).parts[0].replace(".py", "")]

    wrong = []
    for path in sorted((ROOT / house).rglob("*.py")):
        if name_of(path) == f"{house}/__init__.py" and "__init__" not in floor:
            continue
        for name, _ in imports(path):
            target = file_of(name)
            if target.startswith(f"{house}/") and target != f"{house}/__init__.py" and floor_of(target) > floor_of(name_of(path)):
                wrong.append(f"{name_of(path)} imports {name}")
    assert not wrong


def test_there_are_no_circles():
    edges: Dict[str, Set[str]] = {name_of(path): {file_of(name) for name, _ in imports(path)} - {"", name_of(path)} for path in PRODUCT}
    done: Set[str] = set()

    def visit(name: str, trail: Tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(edges.get(name, ())):
                if not is_package_of(target, name):
                    visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def is_package_of(target: str, name: str) -> bool:
    """Python runs a package's __init__ before each of its files, imported or not: `from . import x` is no arrow to it."""
    return target.endswith("/__init__.py") and name.startswith(target[: -len("__init__.py")])


@pytest.mark.parametrize("name", FREE_OF_TORCH)
def test_pure_files_import_no_torch(name):
    assert not [found for found, _ in imports(ROOT / name) if found.split(".")[0] in ("torch", "timm", "torchvision", "poptorch")]


def test_the_launcher_starts_without_torch():
    """But for the agent, which is torch.distributed's, started on each host."""
    knowing = {
        path.name for path in (ROOT / "ipu_model/launcher").glob("*.py") if any(n.split(".")[0] == "torch" for n, _ in imports(path))
    }
    assert knowing <= {"agent.py", "rendezvous.py"}


def test_import_table_finds_what_it_forbids(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    monkeypatch.setattr(source_trees, "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.py").write_text("def f():\n    from ipu_model.runtime import capture\n")
    assert list(imports(tmp_path / "models" / "bad.py")) == [Import("ipu_model.runtime.capture", True)]
    with pytest.raises(AssertionError, match="bad.py imports ipu_model.runtime.capture"):
        test_imports_follow_the_table("models")


# Imports inside of functions, with their reasons. The list may only shrink.
LATE_IMPORTS: Dict[str, str] = {
    **dict.fromkeys(ENTRY_POINTS, "torch takes seconds, for which --help and a mistake on the command line do not wait"),
    "ipu_model/__init__.py": "the package is imported for its module search path, before torch is",
    "ipu_model/launcher/agent.py": "torch is imported once the topology is known to be right",
    "ipu_model/launcher/network.py": "fcntl exists on Linux alone",
    "datasets/arrays.py": "scikit-learn and torchvision, for the data sets that need them",
    "models/augmentation.py": "scipy, for mixup",
    "training/run/curves.py": "matplotlib, at the end of a run",
    "training/run/size_sweep.py": "matplotlib, for sweeps",
    "training/run/export.py": "safetensors, for exports",
    "training/run/wandb_log.py": "wandb, where it is asked for",
    "benchmarks/denormalization.py": "matplotlib, for the figure",
    "benchmarks/paper_efficiency.py": "matplotlib, for the figure",
    "benchmarks/study.py": "matplotlib, for the figure",
}


def test_late_imports_are_on_the_list():
    late = {name_of(path) for path in PRODUCT if any(is_late for _, is_late in imports(path))}
    assert late == set(LATE_IMPORTS)
