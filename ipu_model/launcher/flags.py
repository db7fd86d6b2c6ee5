"""poprun's command line. Each documented flag is honoured, translated, or accepted with a line that says why it has no meaning here."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence

YES, NO = ("1", "yes", "true", "on"), ("0", "no", "false", "off")
DEFAULT_LAUNCHER = "ssh -o BatchMode=yes -- {host} {command}"
DEFAULT_TIMEOUT_SECONDS = 300.0


class Flag(NamedTuple):
    """A flag: its value's type, its default, its help; `why` says why it has no meaning without IPUs, None where it is honoured."""

    name: str
    kind: Any
    default: Any
    text: str
    why: Optional[str] = None


def yes_or_no(text: str) -> bool:
    """The value of a boolean flag."""
    if text.lower() not in YES + NO:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(YES + NO)}, got {text!r}")
    return text.lower() in YES


_NO_VIPU = "there is no V-IPU controller without IPUs"
FLAGS = (
    Flag("--num-replicas", int, 1, "replicas of the model, over all instances"),
    Flag("--num-instances", int, 1, "processes; replicas are shared out evenly"),
    Flag("--ipus-per-replica", int, 1, "IPUs that a replica spans, checked against the program's"),
    Flag("--host", str, "", "comma-separated hosts; instances are shared out evenly, in this order (default: this host)"),
    Flag("--hostfile", str, "", "file with a host on each line"),
    Flag("--host-subnet", str, "", "network, such as 10.3.0.0/16, over which instances talk"),
    Flag("--executable-cache-path", str, "", "folder of compiled models, POPTORCH_CACHE_DIR of all instances"),
    Flag("--mpi-global-args", str, "", "arguments of mpirun: -x NAME=VALUE is translated, others have no meaning"),
    Flag("--mpi-local-args", str, "", "as --mpi-global-args"),
    Flag("--numa-aware", yes_or_no, False, "bind each instance to the cores of a NUMA node"),
    Flag("--only-output-from-instance", int, None, "show the output of this instance alone"),
    Flag("--print-topology", yes_or_no, False, "print where each instance runs, and its replicas"),
    Flag("--import-config", str, "", "read flags from a file that --export-config wrote; those given here win"),
    Flag("--export-config", str, "", "write the flags to a file (JSON)"),
    Flag("--overwrite-config", yes_or_no, False, "let --export-config replace a file"),
    Flag("--max-restarts", int, 0, "start all instances again so many times after one has failed"),
    Flag("--instance-timeout", float, DEFAULT_TIMEOUT_SECONDS, "seconds that instances wait for one another"),
    Flag("--launcher-command", str, DEFAULT_LAUNCHER, "starts {command}, a line of shell, on {host}"),
    Flag("--offline-mode", yes_or_no, False, "compile without IPUs", "the IPU Model never has any; the program runs"),
    Flag("--num-ilds", int, 1, "IPU-Link domains", "there are no IPU-Links"),
    Flag("--vipu-server-host", str, "", "V-IPU controller", _NO_VIPU),
    Flag("--vipu-server-port", int, 8090, "V-IPU controller", _NO_VIPU),
    Flag("--vipu-server-timeout", int, 120, "V-IPU controller", _NO_VIPU),
    Flag("--vipu-partition", str, "", "V-IPU partition", _NO_VIPU),
    Flag("--vipu-allocation", str, "", "V-IPU allocation", _NO_VIPU),
    Flag("--vipu-cluster", str, "", "V-IPU cluster", _NO_VIPU),
    Flag("--vipu-partition-attempts", int, 1, "V-IPU partition", _NO_VIPU),
    Flag("--update-partition", yes_or_no, False, "V-IPU partition", _NO_VIPU),
    Flag("--reset-partition", yes_or_no, True, "V-IPU partition", _NO_VIPU),
    Flag("--remove-partition", yes_or_no, True, "V-IPU partition", _NO_VIPU),
    Flag("--version-format", str, "", "form of --version", "there is one form"),
)
ALIASES = {"--host": ("-H",), "--hostfile": ("--hosts-file",)}
BOOLEAN = {flag.name for flag in FLAGS if flag.kind is yes_or_no}
VALUED = {name for flag in FLAGS if flag.name not in BOOLEAN for name in (flag.name, *ALIASES.get(flag.name, ()))}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


class CommandLine(NamedTuple):
    """What was asked for: flags by name (`num_replicas`), the program with its arguments, verbosity, and lines to say about flags."""

    values: Dict[str, Any]
    program: List[str]
    verbosity: int
    notes: List[str]


def parse(arguments: Optional[Sequence[str]] = None) -> CommandLine:
    """Parse poprun's command line; a mistake is one line on stderr and exit code 2."""
    parser = _build_parser()
    given = parser.parse_args(_with_values(list(sys.argv[1:] if arguments is None else arguments)))
    if not given.program:
        parser.error("no program: expected poprun [FLAGS] PROGRAM [ARGUMENTS...], such as python train.py --config digits")
    try:
        values = {**{_key(flag.name): flag.default for flag in FLAGS}, **_imported(given), **_stated(given)}
        _export(values)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    notes = [f"{flag.name} has no meaning here: {flag.why}" for flag in FLAGS if flag.why and values[_key(flag.name)] != flag.default]
    try:
        notes += [f"{argument} has no meaning here: there is no mpirun" for argument in mpi_arguments(values)[1]]
    except ValueError as error:
        parser.error(str(error))
    return CommandLine(values, given.program, given.verbose, notes)


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="poprun",
        usage="python -m ipu_model.poprun [FLAGS] PROGRAM [ARGUMENTS...]",
        description="Run one program as several instances, over one host or several: what poprun of the Poplar SDK does, without IPUs.",
        epilog="example: python -m ipu_model.poprun --num-instances 2 --num-replicas 2 --ipus-per-replica 2 python train.py",
        allow_abbrev=False,
    )
    for flag in FLAGS:
        shown = "" if flag.default in ("", None, False) else f" (default {flag.default})"
        text = f"{flag.text}{shown}" + (f"; accepted: {flag.why}" if flag.why else "")
        parser.add_argument(flag.name, *ALIASES.get(flag.name, ()), type=flag.kind, default=argparse.SUPPRESS, metavar="X", help=text)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say what is started; -vv: torch.distributed.run's log too")
    parser.add_argument("--version", action="version", version="poprun of the IPU Model 0.1.0, on torch.distributed.run")
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _with_values(arguments: List[str]) -> List[str]:
    """Flags as `--flag=value`, up to the program: a boolean flag alone means yes, and a value may begin with a dash."""
    joined: List[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in ("--v", "--vv"):  # as `-v`, `-vv`
            joined.append(word[1:])
        elif word in BOOLEAN:
            joined.append(f"{word}={rest.pop(0) if rest and rest[0].lower() in YES + NO else YES[0]}")
        elif word in VALUED and rest:
            joined.append(f"{word}={rest.pop(0)}" if word.startswith("--") else f"{word}{rest.pop(0)}")
        else:
            joined.append(word)
    return joined + rest


def _key(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _stated(given: argparse.Namespace) -> Dict[str, Any]:
    return {name: value for name, value in vars(given).items() if name not in ("program", "verbose")}


def _imported(given: argparse.Namespace) -> Dict[str, Any]:
    path = getattr(given, "import_config", "")
    if not path:
        return {}
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--import-config {path}: {error}") from error
    known = {_key(flag.name) for flag in FLAGS}
    unknown = sorted(set(stored) - known) if isinstance(stored, dict) else ["not an object of flags"]
    if unknown:
        raise ValueError(f"--import-config {path}: unknown {', '.join(unknown)}")
    return stored


def _export(values: Dict[str, Any]) -> None:
    if not values["export_config"]:
        return
    path = Path(values["export_config"])
    if path.exists() and not values["overwrite_config"]:
        raise ValueError(f"--export-config: {path} exists; choose another file, or --overwrite-config=yes")
    kept = {key: value for key, value in values.items() if key not in ("import_config", "export_config", "overwrite_config")}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def mpi_arguments(values: Dict[str, Any]) -> Any:
    """What `-x NAME=VALUE` of mpirun's arguments sets (`-x NAME` hands the variable on), and the arguments that are left."""
    words = shlex.split(values["mpi_global_args"]) + shlex.split(values["mpi_local_args"])
    variables: Dict[str, Optional[str]] = {}
    left = []
    while words:
        word = words.pop(0)
        if word != "-x":
            left.append(word)
            continue
        if not words:
            raise ValueError("-x in mpirun's arguments takes NAME or NAME=VALUE")
        name, equals, value = words.pop(0).partition("=")
        variables[name] = value if equals else None
    return variables, left
