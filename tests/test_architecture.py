"""The architecture as a test: who may import whom, how long things are, and what is not written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7
VAGUE = {"utils", "helpers", "common", "misc", "manager"}
ROOMS = ("models", "datasets", "ipu_options", "training")
ENTRY_POINTS = ("train.py", "validate.py", "estimate.py", "summary.py")
PROGRAMS = ("benchmarks/", "examples/")  # what is run from a shell, beside the entry points

# Rules of the import table: files under a path, and the names (or beginnings of names) that they may not import.
FORBIDDEN = {
    "config": ("torch", "poptorch", "ipu_model", "cli", "assembly", *ROOMS),
    "cli": ("torch", "poptorch", "ipu_model", "assembly", *ROOMS),
    "assembly": ("cli", "train", "validate", "estimate", "summary", "benchmarks"),
    "benchmarks": ("train", "validate", "estimate", "summary"),
    **{room: ("ipu_model", "cli", "assembly", *(other for other in ROOMS if other != room)) for room in ROOMS},
    "ipu_model": ("config", "cli", "assembly", "train", "validate", "estimate", "summary", *ROOMS),
    "ipu_model/sdk": ("ipu_model.cost",),
    "ipu_model/runtime": ("ipu_model.sdk", "poptorch"),
    "ipu_model/program": ("torch", "poptorch", "ipu_model.runtime", "ipu_model.sdk", "ipu_model.cost"),
}
# Programs for any PopTorch: nothing of this project but the API that is re-created.
FORBIDDEN["examples"] = ("ipu_model", "config", "cli", "assembly", "benchmarks", *ROOMS)
FORBIDDEN["ipu_model/launcher"] = ("poptorch", "ipu_model.runtime", "ipu_model.sdk", "ipu_model.cost")
FORBIDDEN["ipu_model/cost"] = ("torch", "poptorch", "ipu_model.runtime", "ipu_model.sdk")
_ABOVE_FORWARD = tuple(f"ipu_model.sdk.poptorch.{room}" for room in ("ops", "_impl", "options", "_executor", "_data", "_poplar_executor"))
FORBIDDEN["ipu_model/sdk/poptorch/_forward"] = _ABOVE_FORWARD
FORBIDDEN["ipu_model/sdk/poptorch/_placement"] = ("ipu_model.sdk.poptorch._forward", *_ABOVE_FORWARD)
LAUNCHER = ("flags", "topology", "supervisor", "hosts", "output", "messages", "instance", "network")  # but for the agent, quick to start
FREE_OF_TORCH = (
    "models/architectures.py", "training/schedule.py", "ipu_model/program/placement.py", "ipu_model/poprun.py",
    *(f"ipu_model/launcher/{name}.py" for name in LAUNCHER), "ipu_model/__main__.py", "ipu_model/runtime/tracebacks.py",
    *(f"ipu_model/runner/{name}.py" for name in ("program", "command_line", "installing")), "ipu_model/launcher/python_path.py",
)  # fmt: skip
FACES = {f"ipu_model/sdk/poptorch/{name}.py" for name in ("optim", "options", "_poplar_executor")}  # they are as long as what they mirror
# Rooms inside ipu_model/runtime, lowest first: a file imports from its own room and from those of lower rank.
RUNTIME_RANKS = {
    **dict.fromkeys(("errors", "files", "structures", "operators", "rounding", "instances"), 0),
    "forward": 1, "graph": 2, "capture": 3, "gradients": 3, "device": 4, "tracing": 5,
}  # fmt: skip
# PopTorch's own signatures have as many parameters as they have.
LONG_SIGNATURES = {f"ipu_model/sdk/poptorch/{name}.py" for name in ("optim", "_data/loader", "_data/accessor", "_forward/annotations")}


def python_files() -> List[Path]:
    folders = ("config", "cli", "assembly", *ROOMS, "ipu_model", "benchmarks", "examples", "tests")
    return [ROOT / name for name in ENTRY_POINTS] + [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


FILES = python_files()
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def imports(path: Path) -> Iterator[str]:
    """Absolute names that a file imports, at any level of nesting."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield ".".join(part for part in (base, node.module or "") if part)


def functions(path: Path) -> Iterator[Tuple[ast.FunctionDef, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("rule", sorted(FORBIDDEN))
def test_imports_follow_the_table(rule):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / rule).rglob("*.py"))
        for name in imports(path)
        if any(name == forbidden or name.startswith(f"{forbidden}.") for forbidden in FORBIDDEN[rule])
    ]
    assert not wrong


def test_rooms_of_the_runtime_import_downwards():
    base = "ipu_model.runtime."
    wrong = []
    for path in sorted((ROOT / "ipu_model/runtime").rglob("*.py")):
        own = path.relative_to(ROOT / "ipu_model/runtime").parts[0].replace(".py", "")
        targets = {name[len(base) :].split(".")[0] for name in imports(path) if name.startswith(base)} - {own}
        wrong += [
            f"{path.name} imports {name}" for name in targets if own != "__init__" and RUNTIME_RANKS[name] >= max(RUNTIME_RANKS[own], 1)
        ]
    assert not wrong


@pytest.mark.parametrize("name", FREE_OF_TORCH)
def test_pure_files_import_no_torch(name):
    assert not [found for found in imports(ROOT / name) if found.split(".")[0] in ("torch", "timm", "torchvision", "poptorch")]


def test_import_table_finds_what_it_forbids(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_architecture.ROOT" if __name__.startswith("tests.") else f"{__name__}.ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.py").write_text("def f():\n    from ipu_model.runtime import executor\n")
    assert list(imports(tmp_path / "models" / "bad.py")) == ["ipu_model.runtime"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sizes(path):
    assert path.read_text(encoding="utf-8").count("\n") <= MAX_FILE_LINES or str(path.relative_to(ROOT)) in FACES
    too_long = [where for node, where in functions(path) if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES]
    assert not too_long
    if str(path.relative_to(ROOT)) not in LONG_SIGNATURES:
        many = [where for node, where in functions(path) if len(node.args.args) + len(node.args.kwonlyargs) > MAX_PARAMETERS + 1]
        assert not many


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_names_say_something(path):
    assert not VAGUE & {part.replace(".py", "") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", [p for p in FILES if "tests" not in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_path_and_print_are_left_alone(path):
    """Only ipu_model/__init__.py and its program runner touch sys.path, and the launcher reads it; only what is run from a shell prints."""
    text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or name in (*ENTRY_POINTS, "ipu_model/__main__.py") or name.startswith(PROGRAMS)
    assert "sys.path" not in text or name in ("ipu_model/__init__.py", "ipu_model/launcher/python_path.py", "ipu_model/runner/program.py")


def test_estimate_knows_the_cost_model_and_nothing_below():
    names = [name for name in imports(ROOT / "estimate.py") if name.startswith("ipu_model")]
    assert all(name == "ipu_model" or name.startswith("ipu_model.cost") for name in names)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_are_short_and_know_no_room_behind_assembly(name):
    others = {entry[:-3] for entry in ENTRY_POINTS}
    assert (ROOT / name).read_text(encoding="utf-8").count("\n") <= 130
    assert not [found for found in imports(ROOT / name) if found.split(".")[0] in {"models", "datasets", "ipu_options", "torch", *others}]


def test_only_three_files_of_assembly_know_the_cost_model():
    files = {path.name for path in (ROOT / "assembly").rglob("*.py") if any(name.startswith("ipu_model") for name in imports(path))}
    assert files == {"tracing.py", "splits.py", "estimates.py"}


def test_only_the_entry_points_name_the_ipu_model():
    named = [str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py") if "ipu_model" in set(imports(path))]
    assert not named
    assert all("ipu_model" in set(imports(ROOT / name)) for name in ENTRY_POINTS)


def test_each_test_file_has_a_name_of_its_own():
    """pytest imports them by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
