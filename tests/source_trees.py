"""The source files of this project as syntax trees: what they import and define. For the tests of its architecture and of its rules."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple, Union

ROOT = Path(__file__).parent.parent
APPLICATION = ("models", "datasets", "ipu_options", "training")  # the rooms that are written against the public PopTorch API
ENTRY_POINTS = ("train.py", "validate.py", "estimate.py", "summary.py")
SDK = ("poptorch", "popdist", "popart")
POPTORCH = "ipu_model/sdk/poptorch"

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


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")
