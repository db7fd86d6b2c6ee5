"""Sections 3.9 to 3.11: times, cycles, anchored tensors."""

from __future__ import annotations

import pytest
import torch
from shared_models import Model, data, options
from torch import nn
from torch.nn import functional as F

import poptorch


@pytest.mark.parametrize(
    ("mode", "period", "returned"),
    [
        (poptorch.OutputMode.All, None, 24),
        (poptorch.OutputMode.Sum, None, 2),
        (poptorch.OutputMode.Final, None, 2),
        (poptorch.OutputMode.EveryN, 2, 12),
    ],
)
def test_perf_counters_have_a_time_for_each_micro_batch(mode, period, returned):
    executor = poptorch.trainingModel(Model(), options(4, 3, 2, mode, period))
    assert executor.getPerfCounters()["input"] == [[]]
    executor(*data(48))
    counters = executor.getPerfCounters()
    assert [len(times) for times in counters["input"]] == [24, 24]
    assert [len(times) for times in counters["output_complete"]] == [returned, returned]


def test_latencies_are_minimum_maximum_and_average():
    executor = poptorch.inferenceModel(Model(), options(5))
    assert executor.getLatency() == (0.0, 0.0, 0.0)
    executor(data(10)[0])
    for times in (executor.getLatency(), executor.getComputeLatency()):
        assert 0 < times[0] <= times[2] <= times[1]
    assert all(time >= 0 for time in (*executor.getHostIpuLatency(), *executor.getIpuHostLatency()))


def test_synthetic_data_has_no_latency():
    executor = poptorch.inferenceModel(Model(), poptorch.Options().enableSyntheticData(True))
    executor(data()[0])
    assert executor.getLatency() == (0.0, 0.0, 0.0)
    assert executor.getPerfCounters()["input"] == [[]]


def test_cycles_are_counted_by_hardware_only():
    executor = poptorch.inferenceModel(Model())
    with pytest.raises(poptorch.Error, match="Cycle count logging is"):
        executor.cycleCount()
    if not poptorch.ipuHardwareIsAvailable():
        with pytest.raises(poptorch.Error, match="Cycle count logging is"):
            poptorch.inferenceModel(Model(), poptorch.Options().logCycleCount(True))(data()[0])


def test_compilation_time():
    executor = poptorch.inferenceModel(Model())
    with pytest.raises(poptorch.Error, match="Please compile the model"):
        executor.compilationTime()
    executor(data()[0])
    assert executor.compilationTime().total_seconds() > 0
    silent = poptorch.inferenceModel(Model(), poptorch.Options().showCompilationProgressBar(False))
    silent(data()[0])
    with pytest.raises(poptorch.Error, match="Please set showCompilationProgressBar option"):
        silent.compilationTime()


def test_anchored_gradients_and_weights():
    torch.manual_seed(0)
    model = Model()
    x, y = data(4)
    loss = F.mse_loss(model.layer(x[:2]), y[:2])
    (first,) = torch.autograd.grad(loss, [model.layer.weight])
    weight = model.layer.weight.detach().clone()
    chosen = options(2, 1, 1, poptorch.OutputMode.Final)
    chosen.anchorTensor("grad", "Gradient___layer.weight", poptorch.OutputMode.All).anchorTensor("w", "layer.weight")
    executor = poptorch.trainingModel(model, chosen, torch.optim.SGD(model.parameters(), lr=0.5))
    executor(x, y)
    gradients = executor.getAnchoredTensor("grad")
    torch.testing.assert_close(gradients[:2], first)
    assert gradients.shape == (4, 3)
    torch.testing.assert_close(executor.getAnchoredTensor("w"), weight - 0.5 * first)  # mode of the model: the last iteration's
    with pytest.raises(AssertionError):
        executor.getAnchoredTensor("unknown")


def test_anchored_weights_after_their_updates():
    torch.manual_seed(0)
    model = Model()
    x, y = data(8)  # two updates of two micro batches of two
    expected, weight = [], nn.Linear(3, 2)
    weight.load_state_dict(model.layer.state_dict())
    for update in (slice(0, 4), slice(4, 8)):
        gradients = torch.autograd.grad(F.mse_loss(weight(x[update]), y[update]), list(weight.parameters()))
        for parameter, gradient in zip(weight.parameters(), gradients):
            parameter.data -= 0.5 * gradient
        expected.append(weight.weight.detach().clone())
    chosen = options(2, 2)
    chosen.anchorTensor("all", "UpdatedVar___layer.weight", poptorch.OutputMode.All)
    chosen.anchorTensor("last", "UpdatedVar___layer.weight", poptorch.OutputMode.Final)
    executor = poptorch.trainingModel(model, chosen, torch.optim.SGD(model.parameters(), lr=0.5))
    executor(x, y)
    torch.testing.assert_close(executor.getAnchoredTensor("all"), torch.cat(expected))
    torch.testing.assert_close(executor.getAnchoredTensor("last"), model.layer.weight.detach())
    assert "UpdatedVar___layer.weight" in executor.getTensorNames()


def test_tensor_names():
    executor = poptorch.trainingModel(nn.Sequential(nn.Linear(2, 2), nn.Flatten()))
    with pytest.raises(AssertionError):
        executor.getTensorNames()
    executor = poptorch.trainingModel(Model())
    executor(*data())
    assert {"layer.weight", "Gradient___layer.weight"} <= set(executor.getTensorNames())


def test_named_buffers_are_uploaded_alone():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.register_buffer("scale", torch.ones(1))

        def forward(self, x):
            return x * self.scale * self.weight

    model = Scaled()
    executor = poptorch.inferenceModel(model, poptorch.Options().updatableNamedBuffers(["scale"]))
    assert executor(torch.ones(1)).item() == 1
    model.scale.fill_(3)
    model.weight.data.fill_(100)
    executor.copyNamedBuffersToDevice()
    assert executor(torch.ones(1)).item() == 3
    with pytest.raises(poptorch.Error):
        poptorch.inferenceModel(Scaled()).copyNamedBuffersToDevice()
    with pytest.raises(poptorch.Error, match="no buffer 'other'"):
        poptorch.inferenceModel(Scaled(), poptorch.Options().updatableNamedBuffers(["other"]))(torch.ones(1))
