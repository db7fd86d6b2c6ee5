"""The command line of `python -m ipu_model`: its own options, then a program with its arguments, as Python takes them."""

from __future__ import annotations

import atexit
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from ..runtime.tracebacks import FULL_TRACEBACK, show
from . import installing, program
from .program import Program, ProgramError

USAGE = """usage: python -m ipu_model [OPTIONS] PROGRAM [ARGUMENTS...]
       python -m ipu_model [OPTIONS] -m MODULE [ARGUMENTS...]
       python -m ipu_model [OPTIONS] -c CODE [ARGUMENTS...]
       python -m ipu_model install | uninstall

Runs a PopTorch program where there is no Poplar SDK. PROGRAM is a file, a folder or an archive with a __main__.py,
or - for standard input. `install` makes a plain `import poptorch` work in this environment.

options:
  --pretend-hardware[=bow]  tell the program that there are IPUs, where it asks (IPU_MODEL_PRETEND_HARDWARE)
  --profile DIR             write what each compiled model would cost on IPUs
  --full-traceback          show the frames of torch and of the IPU Model in errors too (IPU_MODEL_FULL_TRACEBACK=1)
"""
PRETEND_HARDWARE = "IPU_MODEL_PRETEND_HARDWARE"


class Line(NamedTuple):
    """What was typed: variables to set, and what to run, as the words that follow the options."""

    variables: Dict[str, str]
    words: List[str]


def parse(arguments: List[str]) -> Line:
    """The command line up to the program.

    Raises:
        ProgramError: an unknown option, or one without its value.
    """
    variables: Dict[str, str] = {}
    words = list(arguments)
    while words and words[0].startswith("--"):
        option, equals, value = words.pop(0).partition("=")
        if option == "--pretend-hardware":
            variables[PRETEND_HARDWARE] = value or "1"
        elif option == "--full-traceback":
            variables[FULL_TRACEBACK] = "1"
        elif option == "--profile":
            if not equals and not words:
                raise ProgramError("--profile takes a folder, and then a program")
            variables["POPLAR_ENGINE_OPTIONS"] = _report_options(value if equals else words.pop(0))
        else:
            raise ProgramError(f"unknown option {option}; options of the program come behind its name (python -m ipu_model --help)")
    return Line(variables, words)


def _report_options(folder: str) -> str:
    """As PopVision's users ask for reports: by Poplar's engine options."""
    options = json.loads(os.environ.get("POPLAR_ENGINE_OPTIONS") or "{}")
    return json.dumps({**options, "autoReport.all": "true", "autoReport.directory": str(Path(folder).resolve())})


def main(arguments: Optional[List[str]] = None) -> int:
    """Do what was typed; the exit code. SystemExit of a program passes through."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        (sys.stdout if given else sys.stderr).write(USAGE)
        return 0 if given else 2
    if given[0] in ("install", "uninstall") and len(given) == 1:
        return getattr(installing, given[0])(_say)
    sys.excepthook = show
    try:
        line = parse(given)
        os.environ.update(line.variables)
        found, rest = _find(line.words)
    except ProgramError as error:
        sys.stderr.write(f"ipu_model: {error}\n")
        return 1
    atexit.register(_mention_pretended_hardware, line.words)  # behind what the program says when it ends
    return program.run(found, rest)


def _find(words: List[str]) -> tuple[Program, List[str]]:
    if not words:
        raise ProgramError("no program: expected a file, -m MODULE or -c CODE (python -m ipu_model --help)")
    first, *rest = words
    if first == "-":
        return program.from_code(sys.stdin.read(), "<stdin>", "-"), rest
    if first[:2] in ("-m", "-c"):
        value, rest = (first[2:], rest) if len(first) > 2 else (rest[0] if rest else "", rest[1:])
        if not value:
            raise ProgramError(f"{first} takes {'a module' if first == '-m' else 'code'}")
        return (program.from_module(value) if first[:2] == "-m" else program.from_code(value)), rest
    if first.startswith("-"):
        raise ProgramError(f"unknown option {first}; options of Python itself come before -m: python {first} -m ipu_model ...")
    return program.from_file(first), rest


def _say(text: str) -> None:
    sys.stdout.write(f"ipu_model: {text}\n")


def _mention_pretended_hardware(words: List[str]) -> None:
    """Of a program that asked for IPUs and left without a model: how it runs."""
    hardware = sys.modules.get("poptorch._hardware")
    announcing = sys.modules.get("poptorch._executor.announce")
    if hardware is None or not hardware.was_refused() or (announcing is not None and announcing.is_announced()):
        return
    command = " ".join(map(shlex.quote, words))
    sys.stderr.write(
        "ipu_model: the program asked for IPUs, was told that there are none, and ended without a model. To let it run, type\n"
        f"  python -m ipu_model --pretend-hardware {command}\n"
    )
