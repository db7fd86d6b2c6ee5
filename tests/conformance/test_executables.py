"""Section 3.7: compiled models as files, and the executable cache."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data, options

import poptorch


def trained(**values):
    torch.manual_seed(0)
    model = Model()
    return model, poptorch.trainingModel(model, options(), poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **values))


def test_saving_needs_a_compiled_model(tmp_path):
    with pytest.raises(poptorch.Error, match="Model has not been"):
        poptorch.inferenceModel(Model()).save(str(tmp_path / "model.poptorch"))


def test_a_saved_training_goes_on_where_it_was(tmp_path):
    x, y = data()
    model, executor = trained()
    executor(x, y)
    executor.save(str(tmp_path / "deep" / "model.poptorch"))
    executor(x, y)
    expected = model.layer.weight.detach().clone()

    restored = poptorch.load(str(tmp_path / "deep" / "model.poptorch"))
    assert restored.isCompiled()
    restored(x, y)
    assert torch.equal(restored.model.layer.weight, expected)


def test_forward_is_not_run_to_load(tmp_path):
    x, _ = data()
    executor = poptorch.inferenceModel(Model())
    executor.compileAndExport(str(tmp_path), x)  # a folder: model.poptorch inside of it
    restored = poptorch.load(str(tmp_path / "model.poptorch"), lambda chosen: chosen.modelName("edited"))
    assert torch.equal(restored(x), executor(x))
    assert restored.options.model_name == "edited"


def test_an_executable_alone_loads_into_a_model(tmp_path):
    path = str(tmp_path / "executable")
    x, _ = data()
    executor = poptorch.inferenceModel(Model())
    executor.compileAndExport(path, x, export_model=False)
    with pytest.raises(AssertionError, match="loadExecutable"):
        poptorch.load(path)
    other = Model()
    fresh = poptorch.inferenceModel(other)
    fresh.loadExecutable(path)
    torch.testing.assert_close(fresh(x), other(x).detach())
    with pytest.raises(poptorch.Error):
        poptorch.inferenceModel(torch.nn.Linear(3, 3)).loadExecutable(path)


def test_offline_models_compile_for_a_run_elsewhere(tmp_path):
    x, _ = data()
    path = str(tmp_path / "offline")
    executor = poptorch.inferenceModel(Model(), poptorch.Options().useOfflineIpuTarget())
    executor.compileAndExport(path, x)
    restored = poptorch.load(path)
    assert restored(x).shape == (4, 2) and not restored.options.exists("ipu_version")


def test_what_is_no_executable_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("hello")
    for name in (path, tmp_path / "missing"):
        with pytest.raises(poptorch.Error):
            poptorch.inferenceModel(Model()).loadExecutable(str(name))


def test_a_class_of_a_function_cannot_be_exported(tmp_path):
    class Local(torch.nn.Module):
        def forward(self, x):
            return x + 1

    executor = poptorch.inferenceModel(Local())
    executor(torch.ones(2))
    with pytest.raises((poptorch.Error, AttributeError)):
        executor.save(str(tmp_path / "local"))
    executor.save(str(tmp_path / "local"), export_model=False)


def test_the_cache_keeps_one_file_for_each_graph(tmp_path):
    x, y = data()

    def run(batch):
        torch.manual_seed(0)
        model = Model()
        executor = poptorch.inferenceModel(model, poptorch.Options().enableExecutableCaching(str(tmp_path / "cache")))
        return executor(x[:batch])

    first, again = run(4), run(4)
    assert torch.equal(first, again)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    run(2)
    assert len(list((tmp_path / "cache").iterdir())) == 2
