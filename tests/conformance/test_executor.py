"""Sections 3 and 4: wrapping, calling, data layout and output modes."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data, options
from torch import nn

import poptorch

# ---- calling


def test_inference_returns_what_forward_returns():
    model, (x, _) = Model(), data()
    out = poptorch.inferenceModel(model)(x)
    torch.testing.assert_close(out, model(x).detach())
    assert not out.requires_grad


def test_structures_and_constants_come_back():
    class Nested(nn.Module):
        def forward(self, x, scale=2):
            return {"a": (x, [x * scale, "text"]), "b": None}

    out = poptorch.inferenceModel(Nested())(torch.ones(2), scale=3)
    assert out["b"] is None and out["a"][1][1] == "text"
    assert out["a"][1][0].tolist() == [3.0, 3.0]


def test_arguments_are_checked():
    executor = poptorch.inferenceModel(Model())
    x, y = data()
    with pytest.raises(AssertionError):
        executor(x, y, x)
    with pytest.raises(AssertionError):
        executor(x, z=y)
    with pytest.raises(AssertionError):
        executor(x, x=x)
    with pytest.raises(poptorch.Error, match="Mandatory parameter x missing"):
        executor()


def test_shapes_and_types_are_fixed_at_compilation():
    executor = poptorch.inferenceModel(Model())
    x, y = data()
    executor(x)
    with pytest.raises(poptorch.Error, match=r"expected torch.Size\(\[4, 3\]\) but got torch.Size\(\[2, 3\]\)"):
        executor(x[:2])
    with pytest.raises(poptorch.Error, match="expected torch.float32 but got torch.float16"):
        executor(x.half())
    with pytest.raises(poptorch.Error, match="Type mismatch for y: expected <class 'NoneType'> but got <class 'torch.Tensor'>"):
        executor(x, y)
    executor.destroy()
    assert executor(x[:2]).shape == (2, 2)


def test_errors_have_a_type_and_a_message():
    with pytest.raises(poptorch.Error) as raised:
        poptorch.inferenceModel(Model())()
    assert raised.value.type == "poptorch_py_error"
    assert str(raised.value).startswith("'poptorch_py_error': ")
    assert isinstance(raised.value, RuntimeError)


def test_options_must_be_options():
    with pytest.raises(poptorch.Error):
        poptorch.inferenceModel(Model(), options=3)
    with pytest.raises(poptorch.Error, match="You must set poptorch.Options"):
        poptorch.inferenceModel(Model(), options(accumulation=2))


def test_backward_cannot_be_called_on_outputs():
    out = poptorch.inferenceModel(Model())(data()[0])
    with pytest.raises(poptorch.Error, match="cannot be called"):
        out.backward()


def test_offline_models_only_compile():
    executor = poptorch.inferenceModel(Model(), poptorch.Options().useOfflineIpuTarget())
    executor.compile(data()[0])
    assert executor.isCompiled() and not executor.isAttachedToDevice()
    with pytest.raises(AssertionError, match="Trying to run a"):
        executor(data()[0])


def test_wide_types_come_back_narrow():
    class Wide(nn.Module):
        def forward(self, x, index):
            return x * 2, index + 1

    doubled, index = poptorch.inferenceModel(Wide())(torch.ones(2, dtype=torch.float64), torch.tensor([1, 2]))
    assert (doubled.dtype, index.dtype) == (torch.float32, torch.int32)


# ---- layout and output modes


def test_a_batch_must_divide_and_the_message_names_the_factors():
    executor = poptorch.trainingModel(Model(), options(2, 2, 2))
    with pytest.raises(AssertionError, match="deviceIterations 2 x gradientAccumulation 2 x replicationFactor 2"):
        executor(*data(12))


@pytest.mark.parametrize(
    ("mode", "period", "chunks"),
    [
        (poptorch.OutputMode.All, None, list(range(24))),
        (poptorch.OutputMode.Final, None, [22, 23]),
        (poptorch.OutputMode.Sum, None, None),
        (poptorch.OutputMode.EveryN, 2, list(range(6, 12)) + list(range(18, 24))),
    ],
)
def test_output_modes_return_their_chunks(mode, period, chunks):
    """4 iterations x 3 steps x 2 replicas, micro batches of 2 rows; nothing learns, so each chunk is known."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x, poptorch.identity_loss(x.mean() + 0 * self.unused.sum(), reduction="none")

    x = torch.arange(48.0).view(48, 1)
    rows, losses = poptorch.trainingModel(Mean(), options(4, 3, 2, mode, period))(x)
    micro = x.view(24, 2)
    if chunks is None:
        expected = micro.view(12, 2, 2).sum(0)  # over iterations and steps, for each replica
        torch.testing.assert_close(rows.view(2, 2), expected)
        torch.testing.assert_close(losses, micro.mean(1).view(12, 2).sum(0))
    else:
        torch.testing.assert_close(rows.view(-1, 2), micro[chunks])
        torch.testing.assert_close(losses, micro[chunks].mean(1))


def test_training_returns_final_and_inference_all_by_default():
    model, (x, y) = Model(), data(12)
    assert poptorch.trainingModel(model, options(3, 2, 1))(x, y)[0].shape == (2, 2)
    assert poptorch.inferenceModel(Model(), options(3))(x).shape == (12, 2)
