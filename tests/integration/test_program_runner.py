"""`python -m ipu_model`: runs programs as Python itself does, lets their child processes find poptorch, and shows their own errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNNER = [sys.executable, "-m", "ipu_model"]


def run(command, folder, **variables):
    """With the package found by PYTHONPATH, which is how a clone is used from another folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


# ---- as Python itself

REPORT = """
import multiprocessing, os, pickle, sys
import neighbour
class Own:
    pass
def work(queue):
    queue.put(("child", __name__, neighbour.__name__))
if __name__ == "__main__":
    spec = None if __spec__ is None else (__spec__.name, __spec__.parent)
    print(sys.argv, __name__, __package__, spec, globals().get("__file__"), sys.path[0], sys.modules["__main__"].__dict__ is globals())
    print(type(pickle.loads(pickle.dumps(Own()))) is Own)
    if "spawn" in sys.argv:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        print(queue.get(timeout=60))
        process.join()
    sys.exit(7)
"""


@pytest.fixture
def programs(tmp_path):
    """A script, a module in a package, a package, a folder and an archive that can be run, each with a neighbour to import."""
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "script.py").write_text(REPORT)
    package = tmp_path / "package"
    package.mkdir()
    for name, text in (("__init__.py", ""), ("module.py", REPORT), ("__main__.py", REPORT)):
        (package / name).write_text(text)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__main__.py").write_text(REPORT)
    (folder / "neighbour.py").write_text("")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", REPORT)
        archive.writestr("neighbour.py", "")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["script.py", "a", "--b", "spawn"],
        ["./script.py", "-m"],
        ["-m", "script", "a"],
        ["-m", "package.module", "--help", "spawn"],
        ["-m", "package", "a"],
        ["folder", "a"],
        ["archive.zip", "a"],
        ["-c", REPORT, "a", "-c"],
        ["-c" + REPORT],
    ],
    ids=lambda arguments: " ".join(arguments).split("\n")[0],
)
def test_a_program_sees_what_python_shows_it(programs, arguments):
    """`__main__`, sys.argv, the first place where it looks for modules, and its exit code."""
    expected = run([sys.executable, *arguments], programs)
    done = run([*RUNNER, *arguments], programs)
    assert expected.returncode == 7 and len(expected.stdout.splitlines()) == 2 + ("spawn" in arguments), expected.stderr
    shown = expected.stdout.replace("/./", "/")
    if sys.version_info < (3, 9):  # where Python still shows paths of scripts as they were typed
        shown = re.sub(r" (?:\./)?(?=(script.py|folder|archive.zip)[ /])", f" {programs}/", shown)
    assert (done.returncode, done.stdout, done.stderr) == (7, shown, "")


def test_standard_input_is_a_program(tmp_path):
    done = subprocess.run([*RUNNER, "-", "a"], cwd=ROOT, input="import sys; print(sys.argv, __name__)", capture_output=True, text=True)
    assert done.stdout == "['-', 'a'] __main__\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.py"], "no such program: nothing.py"),
        (["json"], "no such program: json; for a module, type -m json"),
        (["-m", "no.such.module"], "No module named no.such.module"),
        (["-m", "bare"], "No module named bare.__main__; bare is a package and cannot be directly executed"),
        (["bare"], "can't find a '__main__' module in bare"),
        (["-m"], "-m takes a module"),
        (["--profil", "x"], "unknown option --profil; options of the program come behind its name (python -m ipu_model --help)"),
        (["--profile"], "--profile takes a folder, and then a program"),
        (["--pretend-hardware"], "no program: expected a file, -m MODULE or -c CODE (python -m ipu_model --help)"),
        (["-u", "x.py"], "unknown option -u; options of Python itself come before -m: python -u -m ipu_model ..."),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").write_text("")
    done = run([*RUNNER, *arguments], tmp_path)
    assert (done.returncode, done.stderr) == (1, f"ipu_model: {said}\n")


def test_without_a_program_it_says_how_it_is_used(tmp_path):
    assert run(RUNNER, tmp_path).returncode == 2
    assert run([*RUNNER, "--help"], tmp_path).stdout.startswith("usage: python -m ipu_model")


def test_a_notebook_gets_a_sentence(tmp_path):
    (tmp_path / "train.ipynb").write_text("{}")
    done = run([*RUNNER, "train.ipynb"], tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "train.ipynb is a notebook" in done.stderr and "python -m ipu_model install" in done.stderr


# ---- what a program finds


def test_nothing_of_a_clone_is_found_by_accident(tmp_path):
    """Its folders have usual names; the program has a `config` of its own, and no `datasets`. Child processes see the same."""
    (tmp_path / "config.py").write_text("ours = False")
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        import importlib.util, subprocess, sys
        import config
        names = ("datasets", "models", "training", "train", "poptorch")
        look = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
        print(config.ours, [n for n in names if importlib.util.find_spec(n)])
        print(subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout)
        """)
    )
    for folder in (tmp_path, ROOT):
        done = run([*RUNNER, str(tmp_path / "program.py")], folder)
        lines = done.stdout.splitlines()
        assert lines[0] == "False ['poptorch']", done.stderr
        # started in the clone, a child's `-c` looks there first, as it would without this package
        assert folder == ROOT or lines[1] == "['poptorch']"


def test_child_processes_find_poptorch(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, subprocess, sys\n"
        "os.chdir('/')\n"
        "code = 'import poptorch, popdist, popart; print(poptorch.__version__, poptorch.Options().device_iterations)'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', code]).returncode)\n"
    )
    done = run([*RUNNER, "program.py"], tmp_path)
    assert done.returncode == 0 and done.stdout.endswith(" 1\n"), done.stderr


def test_the_poplar_sdk_wins(tmp_path):
    """Where there is a poptorch already, the program and its children get that one."""
    sdk = tmp_path / "sdk" / "poptorch"
    sdk.mkdir(parents=True)
    (sdk / "__init__.py").write_text("name = 'the SDK'")
    code = "import poptorch, subprocess, sys; print(poptorch.name, flush=True)"
    code += "; subprocess.run([sys.executable, '-c', 'import poptorch; print(poptorch.name)'])"
    done = run([*RUNNER, "-c", code], tmp_path, PYTHONPATH=os.pathsep.join([str(ROOT), str(sdk.parent)]))
    assert done.stdout == "the SDK\nthe SDK\n", done.stderr


# ---- install


@pytest.fixture(scope="module")
def fresh_environment(tmp_path_factory):
    """An environment with this one's packages, and without this package."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    asked = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True)
    packages = Path(asked.stdout.strip())
    (packages / "outer.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    return python, packages


def test_install_makes_poptorch_known_and_uninstall_takes_it_back(fresh_environment, tmp_path):
    python, packages = fresh_environment
    written = packages / "ipu_model.pth"
    done = run([python, "-m", "ipu_model", "install"], tmp_path)
    assert done.returncode == 0 and f"wrote {written}" in done.stdout and written.read_text().strip().endswith("sdk")
    code = (
        "import poptorch, ipu_model, sys; print(poptorch.__version__, ipu_model.__name__, ipu_model.runtime.errors.Error is poptorch.Error)"
    )
    used = run([python, "-c", code], tmp_path, PYTHONPATH="")
    assert used.stdout == "3.4.0 ipu_model True\n", used.stderr
    done = run([python, "-m", "ipu_model", "uninstall"], tmp_path)
    assert done.returncode == 0 and f"removed {written}" in done.stdout and not written.exists()
    assert "nothing to remove" in run([python, "-m", "ipu_model", "uninstall"], tmp_path).stdout
    assert run([python, "-c", "import poptorch"], tmp_path, PYTHONPATH="").returncode == 1


def test_an_installed_sdk_wins_and_is_named(fresh_environment, tmp_path):
    python, packages = fresh_environment
    own = packages / "poptorch"
    own.mkdir()
    (own / "__init__.py").write_text("name = 'the SDK'")
    done = run([python, "-m", "ipu_model", "install"], tmp_path)
    assert "wins" in done.stdout and str(own) in done.stdout
    assert run([python, "-c", "import poptorch; print(poptorch.name)"], tmp_path, PYTHONPATH="").stdout == "the SDK\n"


# ---- errors

FAILING = """
import sys, torch, poptorch
class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x  # the branch
class Shapes(torch.nn.Module):
    def forward(self, x):
        return x @ torch.ones(5, 2, device=x.device)  # the product
if sys.argv[1] == "branch":
    poptorch.inferenceModel(Branch())(torch.ones(2, 3))
elif sys.argv[1] == "shapes":
    poptorch.inferenceModel(Shapes())(torch.ones(2, 3))
elif sys.argv[1] == "setter":
    poptorch.Options().deviceIterations("3")  # the setter
elif sys.argv[1] == "hardware":
    poptorch.ipuHardwareIsAvailable() or sys.exit("no IPU")
    print("version", poptorch.ipuHardwareVersion())
"""


@pytest.fixture
def failing(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    return tmp_path


@pytest.mark.parametrize("case", ["branch", "shapes", "setter"])
def test_the_programs_own_line_comes_last(failing, case):
    done = run([*RUNNER, "failing.py", case], failing)
    frames = [line for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert done.returncode == 1 and frames and all("failing.py" in line for line in frames), done.stderr
    shown = done.stderr[done.stderr.rindex("  File ") :]
    assert {"branch": "# the branch", "shapes": "# the product", "setter": "# the setter"}[case] in shown
    assert "fake_tensor" not in done.stderr  # torch's own log
    whole = run([*RUNNER, "--full-traceback", "failing.py", case], failing)
    assert len([line for line in whole.stderr.splitlines() if line.startswith("  File ")]) > len(frames)
    assert "/ipu_model/" in whole.stderr


def test_a_program_that_asks_for_ipus_and_leaves_is_told_how_it_runs(failing):
    done = run([*RUNNER, "failing.py", "hardware"], failing)
    assert done.returncode == 1 and "no IPU\n" in done.stderr
    assert done.stderr.splitlines()[-1] == "  python -m ipu_model --pretend-hardware failing.py hardware"
    assert run([*RUNNER, "--pretend-hardware", "failing.py", "hardware"], failing).stdout == "version 2\n"
    assert run([*RUNNER, "--pretend-hardware=bow", "failing.py", "hardware"], failing).stdout == "version 21\n"


def test_a_second_start_says_that_the_compiled_model_was_found(tmp_path):
    (tmp_path / "program.py").write_text(
        "import torch, poptorch\n"
        "torch.manual_seed(0)\n"
        "print(poptorch.inferenceModel(torch.nn.Linear(3, 2))(torch.ones(4, 3)).sum().item())\n"
    )
    first, second = (run([*RUNNER, "program.py"], tmp_path, POPTORCH_CACHE_DIR="cache") for _ in range(2))
    assert first.stdout == second.stdout and "found again" not in first.stderr
    assert re.search(r"IPU Model: the compiled model was found again in cache: \d+\.\d s, \d+\.\d s saved\.\n", second.stderr)
