"""Sections 3 and 4: wrapping, calling, data layout and output modes."""

from __future__ import annotations

import copy

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


# ---- what an executor stands for


class LossInTraining(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        result = self.layer(x)
        return (result, poptorch.identity_loss(result.sum(), reduction="none")) if self.training else result


def test_the_copy_of_an_inference_model_decides_what_is_captured():
    model = LossInTraining().train()
    for change in (lambda executor: executor.eval(), lambda executor: executor.model.eval(), lambda executor: executor.model.train(False)):
        executor = poptorch.inferenceModel(model)
        change(executor)
        assert isinstance(executor(torch.ones(2, 3)), torch.Tensor)
        assert model.training  # the user's module keeps its own flag
    executor = poptorch.inferenceModel(model.eval())
    executor.model.train()
    assert isinstance(executor(torch.ones(2, 3)), tuple) and not model.training


def test_attributes_are_looked_up_on_the_users_module_whatever_their_name():
    model = Model()
    model._note = "mine"
    for executor in (poptorch.inferenceModel(model), poptorch.trainingModel(model)):
        assert executor._modules is model._modules and executor._note == "mine"
        with pytest.raises(AttributeError):
            executor._nothing  # noqa: B018


def test_subclasses_call_the_executors_own_signature():
    class Mine(poptorch.PoplarExecutor):
        def __init__(self, model, options=None):
            super().__init__(
                model=copy.copy(model),
                options=options,
                training=True,
                poptorch_version=poptorch.__version__,
                optimizer=None,
                user_model=model,
            )
            self._args_parser = None

    model = Model()
    executor = Mine(model)
    assert executor.model is model and executor._user_model is model and executor._model is not model
    before = model.layer.weight.detach().clone()
    executor(*data())
    assert not torch.equal(model.layer.weight, before)


def test_the_default_optimizer_is_poptorchs():
    executor = poptorch.trainingModel(Model())
    executor(*data())
    assert isinstance(executor._optimizer, poptorch.optim.SGD)
    assert executor._optimizer.param_groups[0]["lr"] == 0.01 and "ipu_state" in executor._optimizer.state_dict()
