"""Runs a program as `__main__`, as Python itself does: a file, a module, code, a folder or zip archive, standard input."""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Dict, Optional

from ..launcher.python_path import is_clone, python_path


class ProgramError(Exception):
    """There is no such program: the message says what came and what to do."""


@dataclass(frozen=True)
class Program:
    """Code, what its module is called and where it lies, the first entry of the search path, and sys.argv[0]."""

    code: CodeType
    attributes: Dict[str, Any]
    search_folder: str
    name: str


def from_file(name: str) -> Program:
    """A script, or the `__main__` of a folder or archive."""
    path = Path(name)
    if path.suffix == ".ipynb":
        raise ProgramError(
            f"{name} is a notebook: type `python -m ipu_model install` once, then open it with Jupyter in this environment; or make a "
            "program of it with `jupyter nbconvert --to script`"
        )
    if not path.exists():
        is_module = name.isidentifier() and importlib.machinery.PathFinder.find_spec(name) is not None
        hint = f"; for a module, type -m {name}" if is_module else ""
        raise ProgramError(f"no such program: {name}{hint}")
    full = os.path.abspath(name)
    spec = importlib.machinery.PathFinder.find_spec("__main__", [full]) if path.is_dir() or _is_archive(path) else None
    if spec is not None:
        return _from_spec(spec, search_folder=full, name=name)
    if path.is_dir():
        raise ProgramError(f"can't find a '__main__' module in {name}")
    if path.suffix == ".pyc":
        loader: Any = importlib.machinery.SourcelessFileLoader("__main__", full)
        code = loader.get_code("__main__")
    else:
        loader = importlib.machinery.SourceFileLoader("__main__", full)
        code = compile(path.read_bytes(), full, "exec", dont_inherit=True)
    attributes = {"__file__": full, "__loader__": loader, "__package__": None, "__spec__": None, "__cached__": None}
    return Program(code, attributes, str(path.resolve().parent), name)


def from_module(name: str) -> Program:
    """A module, or a package's `__main__`, looked for from the present folder on."""
    _set_search_folder(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                raise ProgramError(f"No module named {name}.__main__; {name} is a package and cannot be directly executed")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that a package imports
        spec = None
    if spec is None:
        raise ProgramError(f"No module named {name}")
    return _from_spec(spec, search_folder=os.getcwd(), name=spec.origin or name)


def from_code(text: str, file: str = "<string>", name: str = "-c") -> Program:
    """Code of the command line, or of standard input."""
    attributes = {"__loader__": None, "__package__": None, "__spec__": None}
    return Program(compile(text, file, "exec", dont_inherit=True), attributes, "", name)


def _from_spec(spec: importlib.machinery.ModuleSpec, search_folder: str, name: str) -> Program:
    loader: Any = spec.loader
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise ProgramError(f"{spec.name} has no code to run")
    attributes = {
        "__file__": spec.origin,
        "__loader__": loader,
        "__package__": spec.parent,
        "__spec__": spec,
        "__cached__": spec.cached,
    }
    return Program(code, attributes, search_folder, name)


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix in (".zip", ".pyz")


def run(program: Program, arguments: list) -> int:
    """Run a program to its end; 0, or the exit code of an exception that ended it, which has been shown. SystemExit passes through."""
    _set_search_folder(program.search_folder)
    os.environ["PYTHONPATH"] = python_path()
    sys.argv = [program.name, *arguments]
    module = ModuleType("__main__")
    module.__dict__.update(program.attributes, __builtins__=builtins)
    sys.modules["__main__"] = module
    try:
        exec(program.code, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  what a program does not handle is shown without the frame of this function
        traceback = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error, traceback)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _set_search_folder(folder: str) -> None:
    """Make a folder the first one where modules are looked for; what a clone has beside this package is not found by accident."""
    given: Optional[str] = sys.path[0] if sys.path and not getattr(sys.flags, "safe_path", False) else None
    others = [entry for entry in (sys.path if given is None else sys.path[1:]) if not is_clone(entry)]
    sys.path[:] = others if given is None else [folder, *others]
