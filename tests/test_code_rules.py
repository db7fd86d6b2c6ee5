"""Rules of the code as tests: private names, attributes, bases, sizes, names (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, FrozenSet, Set, Tuple

import pytest
from source_trees import ENTRY_POINTS, FILES, POPTORCH, PRODUCT, ROOT, Function, classes, functions, is_self, name_of, tree_of

MAX_FILE_LINES = 300
MAX_ENTRY_POINT_LINES = 130
MAX_FUNCTION_LINES = 60
MAX_FACE_METHOD_LINES = 8  # a face mirrors a foreign API and holds no logic
MAX_PARAMETERS = 7
MAX_FOREIGN_PRIVATES = 6
VAGUE = {"utils", "helpers", "common", "misc", "manager", "session"}
PROGRAMS = ("benchmarks/", "examples/")  # what is run from a shell, beside the entry points
FACES = tuple(f"{POPTORCH}/{name}.py" for name in ("_poplar_executor", "options", "optim", "enums"))
LONG_SIGNATURES = {*FACES, *(f"{POPTORCH}/{name}.py" for name in ("_data/loader", "_data/accessor", "_forward/annotations"))}

MAY_TOUCH_SYS_PATH = ("ipu_model/__init__.py", "ipu_model/launcher/python_path.py", "ipu_model/runner/program.py")


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
    if name not in FACES:
        assert lines <= (MAX_ENTRY_POINT_LINES if name in ENTRY_POINTS else MAX_FILE_LINES)
    too_long = [where for node, where in functions(path) if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES]
    assert not too_long
    if name not in LONG_SIGNATURES:
        many = [where for node, where in functions(path) if len(node.args.args) + len(node.args.kwonlyargs) > MAX_PARAMETERS + 1]
        assert not many


@pytest.mark.parametrize("name", FACES)
def test_methods_of_faces_hold_no_logic(name):
    """But for __init__, which maps PopTorch's parameters to the parts, and sets every attribute."""
    lengths = {}
    for cls in classes(ROOT / name):
        for method in cls.body:
            if isinstance(method, ast.FunctionDef) and method.name != "__init__":
                body = method.body[1:] if ast.get_docstring(method) else method.body
                lengths[f"{cls.name}.{method.name}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    assert lengths or name.endswith("enums.py")
    assert not {method: length for method, length in lengths.items() if length > MAX_FACE_METHOD_LINES}


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
