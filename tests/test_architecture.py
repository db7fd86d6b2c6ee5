"""The architecture as a test: who may import whom, how long things are, and what is not written (docs/design.md)."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Set, Tuple, Union

import pytest

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 300
MAX_ENTRY_POINT_LINES = 130
MAX_FUNCTION_LINES = 60
MAX_FACE_METHOD_LINES = 8  # a face mirrors a foreign API and holds no logic
MAX_PARAMETERS = 7
MAX_FOREIGN_PRIVATES = 6
VAGUE = {"utils", "helpers", "common", "misc", "manager", "session"}
APPLICATION = ("models", "datasets", "ipu_options", "training")  # the rooms that are written against the public PopTorch API
ENTRY_POINTS = ("train.py", "validate.py", "estimate.py", "summary.py")
PROGRAMS = ("benchmarks/", "examples/")  # what is run from a shell, beside the entry points
SDK = ("poptorch", "popdist", "popart")
POPTORCH = "ipu_model/sdk/poptorch"
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
FACES = tuple(f"{POPTORCH}/{name}.py" for name in ("_poplar_executor", "options", "optim", "enums", "_data/loader", "_data/accessor"))
LONG_SIGNATURES = {*FACES, f"{POPTORCH}/_forward/annotations.py"}

MAY_TOUCH_SYS_PATH = ("ipu_model/__init__.py", "ipu_model/launcher/python_path.py", "ipu_model/runner/program.py")

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files() -> List[Path]:
    folders = ("config", "cli", *APPLICATION, "assembly", "ipu_model", "benchmarks", "examples", "tests")
    return [ROOT / name for name in ENTRY_POINTS] + [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


FILES = python_files()
PRODUCT = [path for path in FILES if "tests" not in path.parts]


@functools.lru_cache(maxsize=None)
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


class Import(NamedTuple):
    """An absolute name that a file imports; `is_late` inside of a function."""

    name: str
    is_late: bool


def imports(path: Path) -> Iterator[Import]:
    """What a file imports, names behind `from ... import` included (they may be modules)."""
    package = path.relative_to(ROOT).parts[:-1]
    tree = tree_of(path)
    late = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from (Import(f"{module}.{alias.name}", id(node) in late) for alias in node.names)


def file_of(name: str) -> str:
    """The file of this project that an imported name lives in; empty for foreign names."""
    name = f"ipu_model.sdk.{name}" if name.split(".")[0] in SDK else name
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return name_of(candidate)
    return ""


def functions(path: Path) -> Iterator[Tuple[Function, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, f"{name_of(path)}:{node.lineno} {node.name}"


def classes(path: Path) -> Iterator[ast.ClassDef]:
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef))


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


# ---- who may touch what


def names_defined_in(path: Path) -> FrozenSet[str]:
    """Names that a file defines: functions, classes, variables, and attributes of self and cls."""
    found: Set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return frozenset(found)


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


# Private names of other objects: file and name, with the reason. The list may only shrink.
_OWN_COPY = "PopTorch's private name: an executor changes its own copy of the options, which are frozen for everyone else"
_OPTION = "PopTorch's private name: plain attributes of Options, read in this one place"
FOREIGN_PRIVATES: Dict[Tuple[str, str], str] = {
    (f"{POPTORCH}/_executor/run_settings.py", "_freeze"): _OWN_COPY,
    (f"{POPTORCH}/_executor/run_settings.py", "_unfreeze"): _OWN_COPY,
    (f"{POPTORCH}/_executor/run_settings.py", "_execution_strategy"): _OPTION,
    (f"{POPTORCH}/_executor/run_settings.py", "_relax_optimizer_checks"): _OPTION,
    (f"{POPTORCH}/_executor/run_settings.py", "_show_compilation_progress_bar"): _OPTION,
    (f"{POPTORCH}/_options/store.py", "_groups"): "of another OptionStore",
}
OF_TORCH = {"_schema"}  # private names of torch that one of our files has too


def test_private_names_stay_in_the_file_that_defines_them():
    defined = {path: names_defined_in(path) for path in PRODUCT}
    ours = frozenset().union(*defined.values())
    found = {
        (name_of(path), node.attr)
        for path in PRODUCT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__") and not is_self(node.value)
        if node.attr in ours - defined[path] - OF_TORCH
    }
    assert found == set(FOREIGN_PRIVATES)
    assert len(FOREIGN_PRIVATES) <= MAX_FOREIGN_PRIVATES


# What a base class in another file sets in its __init__.
SET_BY_THE_BASE = {f"{POPTORCH}/options.py": "OptionStore sets the switches that Options hands it"}


def assigned_in(function: Function) -> Set[str]:
    stores = (node for node in ast.walk(function) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr for node in stores if is_self(node.value)}


def declared_in(cls: ast.ClassDef) -> Set[str]:
    """Attributes that a class has from the start: fields of a dataclass, class variables, properties, what __init__ assigns."""
    found: Set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef):
            found |= assigned_in(node) if node.name in ("__init__", "__new__", "__setstate__") else {node.name}
    return found


@pytest.mark.parametrize("path", [path for path in PRODUCT if name_of(path) not in SET_BY_THE_BASE], ids=name_of)
def test_attributes_are_set_in_init(path):
    by_name = {cls.name: cls for cls in classes(path)}
    wrong = []
    for cls in classes(path):
        known, waiting = declared_in(cls), [cls]
        while waiting:
            bases = [by_name[base.id] for base in waiting.pop().bases if isinstance(base, ast.Name) and base.id in by_name]
            known |= set().union(*(declared_in(base) for base in bases)) if bases else set()
            waiting += bases
        late = {name for method in cls.body if isinstance(method, ast.FunctionDef) for name in assigned_in(method)} - known
        wrong += [f"{cls.name}.{name}" for name in sorted(late)]
    assert not wrong


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_nothing_is_assigned_on_a_fresh_object_from_outside(path):
    wrong = []
    for function, where in functions(path):
        fresh = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
            if node.value.func.id[:1].isupper()
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        stores = (node for node in ast.walk(function) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
        wrong += [f"{where}: {node.value.id}.{node.attr}" for node in stores if isinstance(node.value, ast.Name) and node.value.id in fresh]
    assert not wrong


# Two bases with code: an interface (Protocol, ABC) or a foreign class beside one of ours, with the reason.
SEVERAL_BASES: Dict[str, str] = {
    "datasets/images.py:ImageSet": "an interface (ABC) that is a torch Dataset",
    "training/parts.py:TrainingExecutor": "Protocols",
    "training/parts.py:InferenceExecutor": "Protocols",
    **dict.fromkeys(
        (f"{POPTORCH}/optim.py:{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "LAMB")),
        "torch's, and PopTorch's own",
    ),
}


def test_classes_have_one_base():
    several = {f"{name_of(path)}:{cls.name}" for path in PRODUCT for cls in classes(path) if len(cls.bases) > 1}
    assert several == set(SEVERAL_BASES)


def test_no_executor_is_any():
    wrong = []
    for path in PRODUCT:
        for node in ast.walk(tree_of(path)):
            is_any = isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name) and node.annotation.id == "Any"
            if is_any and node.arg in ("executor", "config", "program", "parts"):
                wrong.append(f"{name_of(path)}:{node.lineno} {node.arg}: Any")
    assert not wrong


# ---- how long and how named


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path):
    name = name_of(path)
    lines = path.read_text(encoding="utf-8").count("\n")
    if name not in FACES and name != "tests/test_architecture.py":
        assert lines <= (MAX_ENTRY_POINT_LINES if name in ENTRY_POINTS else MAX_FILE_LINES)
    too_long = [where for node, where in functions(path) if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES]
    assert not too_long
    if name not in LONG_SIGNATURES:
        many = [where for node, where in functions(path) if len(node.args.args) + len(node.args.kwonlyargs) > MAX_PARAMETERS + 1]
        assert not many


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_say_something(path):
    assert not VAGUE & {part.replace(".py", "") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_path_and_print_are_left_alone(path):
    """Only ipu_model/__init__.py and the program runner touch sys.path, and the launcher reads it; only what a shell runs prints."""
    name = name_of(path)
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or name in (*ENTRY_POINTS, "ipu_model/__main__.py") or name.startswith(PROGRAMS)
    assert "sys.path" not in path.read_text(encoding="utf-8") or name in MAY_TOUCH_SYS_PATH


def test_each_test_file_has_a_name_of_its_own():
    """pytest imports them by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
