"""estimate.py as a program, and estimates of other people's models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import estimate as entry
import ipu_model
import poptorch
from assembly.splits import with_best_splits
from assembly.tracing import trace_training
from config import load_preset

ROOT = Path(__file__).parent.parent.parent


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of estimate.py."""
    monkeypatch.setattr(sys, "argv", ["estimate.py", *map(str, arguments)])
    try:
        code = entry.main()
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_table_for_a_preset(monkeypatch, capsys, tmp_path):
    code, text, _ = run(monkeypatch, capsys, "--config", "tiny", "--report", tmp_path / "report.html")
    assert code == 0
    order = [text.index(word) for word in ("images/s", "Insights", "Memory at the worst", "Cycles of one", "Costliest layers", "ASSUMED_")]
    assert order == sorted(order)
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_json_and_inference(monkeypatch, capsys):
    code, text, _ = run(monkeypatch, capsys, "--config", "tiny", "--json", "--inference", "--machine", "bow-pod16")
    values = json.loads(text)
    assert code == 0 and values["fits"] and values["machine"] == "bow-pod16" and len(values["ipus"]) == 2


def test_what_is_stated_changes_the_estimate(monkeypatch, capsys):
    def values(*arguments):
        return json.loads(run(monkeypatch, capsys, "--config", "tiny", "--json", *arguments)[1])

    plain = values()
    assert values("--replicas", "4")["num_ipus"] == 2 * plain["num_ipus"]
    assert values("--pipeline-schedule", "sequential")["step_cycles"] > plain["step_cycles"]
    assert values("--half-partials")["step_cycles"] < plain["step_cycles"]
    assert values("--no-recomputation")["ipus"][0]["cycles"] < plain["ipus"][0]["cycles"]
    larger = values("--micro-batch-size", "6", "--gradient-accumulation", "3")
    assert larger["ipus"][0]["peak_bytes_per_tile"] > plain["ipus"][0]["peak_bytes_per_tile"]


def test_the_fine_tuning_phase_has_an_estimate_of_its_own(monkeypatch, capsys):
    config = load_preset("digits-half", {}).phases[1]
    traced = trace_training(config)
    program, settings = traced.program, traced.settings
    trained = {variable.name for variable in program.variables if variable.is_trained}
    layers = tuple(f"classifier.network.{layer}." for layer in config.model.trainable_layers)
    assert trained and all(name.startswith(layers) for name in trained)
    assert program.inputs[0].shape[2] == 24 and settings.gradient_accumulation == config.batch.accumulation_steps

    def speed(*arguments):
        text = run(monkeypatch, capsys, "--config", "digits-half", "--json", "--fine-tuning", *arguments)[1]
        return json.loads(text)["images_per_second"]

    assert speed() > speed("--fine-tune-trainable-layers", "blocks", "conv_head", "bn2", "classifier")
    code, _, error = run(monkeypatch, capsys, "--config", "tiny", "--fine-tuning")
    assert code == 2 and "give --fine-tune-epochs" in error and len(error.splitlines()) == 1
    code, _, error = run(monkeypatch, capsys, "--config", "tiny", "--trainable-layers", "clasifier")
    assert code == 1 and "did you mean 'classifier'?" in error


def test_a_preset_that_does_not_fit_exits_with_1(monkeypatch, capsys):
    code, text, _ = run(monkeypatch, capsys, "--config", "tiny", "--replicas", "32", "--gradient-accumulation", "3")
    assert code == 1 and "64 IPUs are needed, pod16 has 16" in text


def test_splits_are_found(monkeypatch, capsys):
    code, text, notes = run(monkeypatch, capsys, "--config", "tiny", "--pipeline-splits", "auto", "--automatic-stages", "3", "--json")
    assert len(json.loads(text)["ipus"]) == 3 and "largest micro batch that fits" in notes
    splits = next(line for line in notes.splitlines() if line.startswith("pipeline_splits: ")).split()[1:]
    config = with_best_splits(load_preset("tiny", {"pipeline_splits": ("auto",), "automatic_stages": 3}))
    assert list(config.ipu.pipeline_splits) == splits and config.ipus == 6
    balance = [ipu["cycles"] for ipu in json.loads(text)["ipus"]]
    assert max(balance) < 2 * min(balance)


def test_each_ipu_has_its_own_memory_proportion_on_stages_that_auto_makes():
    proportions = (0.2, 0.3, 0.4)
    config = load_preset("tiny", {"pipeline_splits": ("auto",), "automatic_stages": 3, "available_memory_proportion": proportions})
    assert trace_training(config).settings.memory_proportions == (0.2, 0.3, 0.4)


def test_a_sweep_compares(monkeypatch, capsys, tmp_path):
    page = tmp_path / "sweep.html"
    arguments = ("--config", "tiny", "--sweep", "digits", "--sweep-machines", "pod16", "bow-pod16", "--report", page)
    code, text, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0 and all(name in text for name in ("tiny on pod16", "tiny on bow-pod16", "digits on pod16", "digits on bow-pod16"))
    assert "<svg" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--machine", "pod15"), "invalid choice: 'pod15'"),
        (("--config", "tinny"), "did you mean"),
        (("--pipeline-splits", "blocks.99"), "no module 'blocks.99'"),
        (("--jsom",), "unknown argument '--jsom'"),
        (("--report", "/nowhere/report.html"), "cannot be written"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, arguments, message):
    code, _, notes = run(monkeypatch, capsys, "--config", "tiny", *arguments)
    assert code in (1, 2)
    assert message in notes and "Traceback" not in notes


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 8)

    def forward(self, x, labels):
        return nn.functional.cross_entropy(self.second(torch.relu(self.first(x))), labels)


def test_any_wrapped_model_can_be_estimated():
    model = Network()
    poptorch.BeginBlock(model.first, "a", ipu_id=0)
    poptorch.BeginBlock(model.second, "b", ipu_id=1)
    options = poptorch.Options().replicationFactor(2)
    options.Training.gradientAccumulation(4)
    executor = poptorch.trainingModel(model, options, torch.optim.AdamW(model.parameters()))
    estimate = ipu_model.estimate(executor, torch.zeros(80, 32), torch.zeros(80, dtype=torch.long), machine="pod4")
    assert estimate.num_ipus == 4 and len(estimate.stages) == 2 and estimate.images_per_step == 80
    assert estimate.macs == 32 * 64 + 64 * 8
    assert estimate.ipus[0].memory.weights == pytest.approx(4 * (32 * 64 + 64) / 1472)
    assert estimate.ipus[1].memory.optimizer_state == pytest.approx(8 * (64 * 8 + 8) / 1472)
    assert not executor.isCompiled()  # nothing ran
    with pytest.raises(ValueError, match="unknown machine"):
        ipu_model.estimate(executor, torch.zeros(80, 32), torch.zeros(80, dtype=torch.long), machine="pod5")


CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_opens_in_a_browser(monkeypatch, capsys, tmp_path):
    run(monkeypatch, capsys, "--config", "tiny", "--report", tmp_path / "report.html")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", (tmp_path / "report.html").as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 'id="execution-trace"' in result.stdout and result.stdout.count("<svg") >= 4


def test_profiling_options_write_the_report(tmp_path, monkeypatch):
    options = poptorch.Options().enableProfiling(str(tmp_path)).modelName("mine")
    poptorch.inferenceModel(nn.Linear(4, 2), options)(torch.zeros(8, 4))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["estimate.json", "report.html"]
    engine = {"autoReport.all": "true", "autoReport.directory": str(tmp_path / "other")}
    monkeypatch.setenv("POPLAR_ENGINE_OPTIONS", json.dumps(engine))
    poptorch.inferenceModel(nn.Linear(4, 2))(torch.zeros(8, 4))
    assert (tmp_path / "other" / "inference" / "report.html").is_file()


def test_nothing_is_estimated_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    poptorch.inferenceModel(nn.Linear(4, 2))(torch.zeros(8, 4))
    assert not list(tmp_path.iterdir())


def test_the_runner_profiles_programs_of_others(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import poptorch, torch\npoptorch.inferenceModel(torch.nn.Linear(4, 2))(torch.zeros(8, 4))\n")
    command = [sys.executable, "-m", "ipu_model", "--profile", str(tmp_path / "profile"), str(program)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "profile" / "inference" / "estimate.json").read_text())["fits"]
