"""The scripts as a user starts them: in this process where that tells the same, in one of their own where signals and pipes matter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import summary as summary_entry
import train as training_entry
import validate as validation_entry

ROOT = Path(__file__).parent.parent.parent


def start(*arguments, **settings):
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def finish(*arguments, **settings):
    process = start(*arguments, **settings)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def train(*arguments):
    """tiny without norms, which is compiled soonest."""
    return ("train.py", "--config", "tiny", "--norm", "none", "--no-proxy-norm", "--log-every-steps", "1", *arguments)


@pytest.fixture
def ended(monkeypatch, capsys):
    """Runs a program in this process: exit code, standard output, standard error."""

    def run(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{entry.__name__}.py", *map(str, arguments)])
        try:
            code = entry.main()
        except SystemExit as exit_:
            code = exit_.code
        return (code, *capsys.readouterr())

    return run


def losses(folder):
    lines = (folder / "training.csv").read_text().splitlines()
    return [line.split(",")[:6] for line in lines]


def test_help_does_not_wait_for_torch():
    code, out, imported = finish("-X", "importtime", "train.py", "--help")
    assert code == 0 and "--micro-batch-size" in out
    assert " argparse\n" in imported and " torch\n" not in imported


def test_a_dry_run_shows_derived_values(ended):
    code, out, _ = ended(training_entry, "--config", "tiny", "--dry-run")
    assert code == 0
    for line in ("global_batch_size: 18", "ipus: 4", "steps_per_epoch: 3", "learning_rate: 0.018"):
        assert line in out


def test_a_dry_run_of_the_papers_preset_needs_no_images(ended):
    code, out, _ = ended(training_entry, "--config", "efficientnet-b0-g16-gn-16ipu", "--dry-run")
    assert code == 0
    # 1,281,167 // 768 = 1,668 updates an epoch; 2^-14 * 768 = 0.046875
    for line in ("global_batch_size: 768", "ipus: 16", "steps_per_epoch: 1668", "learning_rate: 0.046875", "published number"):
        assert line in out


@pytest.mark.parametrize(
    ("entry", "arguments", "code", "fragment"),
    [
        (training_entry, ["--config", "tinny"], 2, "did you mean 'tiny'"),
        (training_entry, ["--config", "tiny", "--pipeline-splits", "blocks.9.0"], 1, "no module 'blocks.9.0'"),
        (training_entry, ["--config", "tiny", "--gradient-accumulation", "2"], 1, "gradientAccumulation must be greater"),
        (training_entry, ["--config", "tiny", "--resume", "README.md"], 1, "not a whole checkpoint"),
        (training_entry, ["--config", "digits", "--dataset", "folder", "--data-path", "/nowhere"], 1, "/nowhere/train/CLASS/IMAGE"),
        (training_entry, ["--config", "tiny", "--fine-tune-replicas", "1"], 2, "give fine_tune_epochs, such as 2"),
        (training_entry, ["--fine-tune-from", "nowhere"], 1, "no checkpoint at nowhere"),
        (training_entry, ["--config", "tiny", "--architecture", "efficientnet-b0"], 1, "image size 8 is too small for"),
        (training_entry, ["--config", "tiny", "--generated-images", "17"], 1, "has 17 images, one call consumes 18"),
        (validation_entry, ["--checkpoint", "x", "--image-sizes", "320:160:32"], 2, "expected FIRST:LAST:STEP such as 160:320:32"),
        (validation_entry, ["--checkpoint", "x", "--averaged", "mean", "--weights", "current"], 2, "leave out --weights"),
        (summary_entry, ["efficientnet-b9"], 2, "unknown preset 'efficientnet-b9'"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(ended, tmp_path, entry, arguments, code, fragment):
    output = ["--output", tmp_path / "run"] if entry is not summary_entry else []
    returned, _, error = ended(entry, *arguments, *output)
    assert returned == code
    assert fragment in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_mistake_has_no_traceback_in_a_process_of_its_own(tmp_path):
    code, _, error = finish("train.py", "--config", "tiny", "--pipeline-splits", "blocks.9.0", "--output", str(tmp_path / "run"))
    assert code == 1 and "no module 'blocks.9.0'" in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if not line.startswith("IPU Model")]) == 1


@pytest.mark.parametrize("last", ["--dry-run", pytest.param("--epochs=1", marks=pytest.mark.slow)])
def test_output_that_nobody_reads_ends_the_program_without_a_word(tmp_path, last):
    process = start(*train("--output", str(tmp_path / "run"), last))
    process.stdout.close()
    process.stdout = None
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGPIPE
    assert [line for line in error.splitlines() if not line.startswith("IPU Model")] == []


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(tmp_path, finished_run):
    whole = finished_run(epochs=2, norm="none", proxy_norm=False)
    process = start(*train("--epochs", "2", "--output", str(tmp_path / "killed"), "--checkpoint-every-steps", "1"))
    wait_for(process, tmp_path / "killed", rows=4)
    process.kill()
    process.communicate()
    assert len(losses(tmp_path / "killed")) < 7  # a heading and six updates
    assert finish(*train("--epochs", "2", "--output", str(tmp_path / "killed"), "--resume", "auto"))[0] == 0
    assert losses(tmp_path / "killed") == losses(whole)


@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint_and_exits_130(tmp_path):
    process = start(*train("--epochs", "1", "--output", str(tmp_path / "run"), "--num-workers", "1"), start_new_session=True)
    wait_for(process, tmp_path / "run", rows=2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the run gets it
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "go on with" in out and "Traceback" not in error
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()


def wait_for(process, folder, rows):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "training.csv").is_file() and len(losses(folder)) > rows:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {rows} rows: {process.poll()}")


@pytest.mark.slow
def test_wandb_works_offline_without_an_account(tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline"}
    code, _, error = finish(*train("--epochs", "1", "--output", str(tmp_path / "run"), "--wandb"), env=environment)
    assert code == 0, error
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_the_ipu_model_installs_alone(tmp_path):
    """From a wheel, outside of the repository, `python -m ipu_model` runs a program that imports poptorch."""
    built = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(ROOT)]
    subprocess.run(built, check=True, timeout=300)
    program = tmp_path / "program.py"
    program.write_text("import poptorch, sys\nprint(poptorch.__file__, sys.argv[1:], __name__)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-m", "ipu_model", str(program), "a", "b"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split("/")[-1].strip() == "__init__.py ['a', 'b'] __main__"
    assert str(tmp_path / "site") in run.stdout


def test_examples_of_the_readme_name_presets_that_exist():
    from config import preset_names

    words = (ROOT / "README.md").read_text().replace("`", " ").split()
    named = [after for word, after in zip(words, words[1:]) if word == "--config"]
    assert named and set(named) - {"NAME", "..."} <= set(preset_names())
