"""Captured programs as files, the trace cache, custom operators, loops under half precision."""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch
from torch import nn

import ipu_model
import poptorch
from ipu_model.runtime.graph import cache as trace_cache


class Attention(nn.Module):
    """Enough kinds of operations: views, in-place updates, random numbers, constants."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.mask = torch.tensor([0.0, 1.0, 0.0, 1.0])

    def forward(self, x):
        x = self.norm(self.layer(x) * self.mask)
        return poptorch.identity_loss(nn.functional.dropout(x, 0.5).square().mean(), reduction="none")


def trainer(folder=None, model=None):
    torch.manual_seed(0)
    model = model or Attention()
    options = poptorch.Options().randomSeed(3).enableExecutableCaching(folder)
    options.Training.gradientAccumulation(2)
    return poptorch.trainingModel(model, options, poptorch.optim.AdamW(model.parameters(), lr=0.1))


def losses(executor):
    generator = torch.Generator().manual_seed(1)
    return [executor(torch.randn(8, 4, generator=generator)).item() for _ in range(3)]


def test_a_pickled_program_computes_the_same():
    plain, pickled = trainer(), trainer()
    for executor in (plain, pickled):
        executor.compile(torch.randn(8, 4))
    pickled._compiled = pickle.loads(pickle.dumps(pickled._compiled))
    assert losses(plain) == losses(pickled)


def test_a_found_program_needs_no_backward_pass(tmp_path, monkeypatch):
    calls = []
    gradients = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or gradients(*args, **kwargs))
    first = losses(trainer(str(tmp_path)))
    once = len(calls)
    assert once > 0
    assert losses(trainer(str(tmp_path))) == first and len(calls) == once
    assert len(list(tmp_path.iterdir())) == 1
    changed = Attention()
    changed.mask = torch.ones(4)  # a constant of the graph
    assert losses(trainer(str(tmp_path), changed)) != first
    assert len(calls) == 2 * once and len(list(tmp_path.iterdir())) == 2


def test_a_backward_pass_in_python_is_not_trusted_to_the_cache(tmp_path):
    class Scaled(torch.autograd.Function):
        factor = 2.0

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * Scaled.factor

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return poptorch.identity_loss((Scaled.apply(self.w) * x).sum(), reduction="none")

    weights = []
    for Scaled.factor in (2.0, 5.0):
        model = Model()
        options = poptorch.Options().enableExecutableCaching(str(tmp_path))
        executor = poptorch.trainingModel(model, options, torch.optim.SGD(model.parameters(), lr=1.0))
        executor(torch.ones(1))
        weights.append(model.w.item())
    assert weights == [1 - 2, 1 - 5]
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path, caplog):
    first = losses(trainer(str(tmp_path)))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(b"nonsense")
    assert losses(trainer(str(tmp_path))) == first
    assert path.name in caplog.text and len(path.read_bytes()) == len(content)


ROOMS = sorted(path.parent.name for path in trace_cache.SOURCES.glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_the_code_that_lowers_is_part_of_the_fingerprint(room, tmp_path, monkeypatch):
    """A changed source file of any room of the runtime makes another program of the same forward."""
    code, graph = tmp_path / "runtime", torch.fx.Graph()
    shutil.copytree(trace_cache.SOURCES, code)
    before = trace_cache.fingerprint(graph, None, (), ())
    monkeypatch.setattr(trace_cache, "SOURCES", code)
    assert trace_cache.fingerprint(graph, None, (), ()) == before
    changed = next(path for path in sorted((code / room).rglob("*.py")) if path.name != "__init__.py")
    changed.write_text(changed.read_text() + "# changed\n")
    assert trace_cache.fingerprint(graph, None, (), ()) != before


def test_a_program_of_other_code_is_not_found(tmp_path, monkeypatch):
    losses(trainer(str(tmp_path / "cache")))
    code = tmp_path / "runtime"
    shutil.copytree(trace_cache.SOURCES, code)
    (code / "rounding.py").write_text("")
    monkeypatch.setattr(trace_cache, "SOURCES", code)
    losses(trainer(str(tmp_path / "cache")))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_loops_and_branches_survive_pickling():
    def forward(x):
        (x,) = poptorch.for_loop(3, lambda value: value * 2, [x])
        return poptorch.cond(x.sum() > 10, lambda v: v + 1, [x], lambda v: v - 1, [x])[0]

    executor = poptorch.inferenceModel(forward)
    executor.compile(torch.ones(2))
    executor._compiled = pickle.loads(pickle.dumps(executor._compiled))
    assert executor(torch.ones(2)).tolist() == [9, 9] and executor(torch.zeros(2)).tolist() == [-1, -1]


def test_loops_compute_half_as_everything_else():
    forward = lambda x: poptorch.for_loop(4, lambda value: value * 100 / 100, [x])[0]  # noqa: E731  overflows half in between
    result = poptorch.inferenceModel(forward)(torch.tensor([1000.0]).half())
    assert result.dtype == torch.float16 and result.item() == 1000


def test_registered_custom_operators():
    def call(x):
        return poptorch.custom_op([x], "Cube", "com.acme", 1, [x], attributes={"factor": 2.0})[0]

    with pytest.raises(NotImplementedError, match="register_custom_op"):
        poptorch.inferenceModel(call)(torch.ones(2))
    ipu_model.register_custom_op("Cube", "com.acme", lambda inputs, attributes: attributes["factor"] * inputs[0] ** 3)
    assert poptorch.inferenceModel(call)(torch.tensor([1.0, 2.0])).tolist() == [2, 16]
    ipu_model.register_custom_op("Cube", "com.acme", lambda inputs, attributes: inputs[0].sum())
    with pytest.raises(poptorch.Error, match="expected outputs"):
        poptorch.inferenceModel(call)(torch.ones(2))


def test_host_operations_cannot_be_saved(tmp_path):
    operation = poptorch.CPU(lambda x: x + 1, "plus")
    executor = poptorch.inferenceModel(lambda x: operation(x))
    executor(torch.ones(1))
    with pytest.raises(poptorch.Error, match="cannot be saved"):
        executor.save(str(tmp_path / "file"), export_model=False)


def test_models_that_call_the_host_are_captured_anew_where_programs_are_kept(tmp_path):
    results = []
    for offset in (1, 2):
        operation = poptorch.CPU(lambda x, offset=offset: x + offset, "plus")
        options = poptorch.Options().enableExecutableCaching(str(tmp_path))
        results.append(poptorch.inferenceModel(lambda x, call=operation: call(x * 2), options)(torch.ones(1)).item())
    assert results == [3, 4] and not list(tmp_path.iterdir())


def test_equal_loops_are_one_program(tmp_path):
    def forward(x):
        return poptorch.for_loop(3, lambda v: poptorch.cond(v.sum() > 4, lambda u: u + 1, [v], lambda u: u * 2, [v])[0], [x])[0]

    for _ in range(2):
        options = poptorch.Options().enableExecutableCaching(str(tmp_path))
        assert poptorch.inferenceModel(forward, options)(torch.ones(1)).item() == 8
    assert len(list(tmp_path.iterdir())) == 1


def test_an_estimate_knows_parameters_in_lists_and_plain_tensors():
    class Listed(nn.Module):
        def __init__(self, is_listed):
            super().__init__()
            self.w, self.factor = nn.Parameter(torch.ones(3, 3)), torch.ones(3)
            self.parts = [self.w] if is_listed else None

        def forward(self, x):
            weight = self.w if self.parts is None else self.parts[0]
            return poptorch.identity_loss((x * self.factor @ weight * self.factor).sum(), reduction="sum")

    direct, listed = (ipu_model.estimate(poptorch.trainingModel(Listed(flag)), torch.ones(2, 3)).as_json() for flag in (False, True))
    assert direct == listed
