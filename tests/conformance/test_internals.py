"""Section 15: internals that other projects reach into, and the helpers of section 8.5."""

from __future__ import annotations

import torch
from shared_models import Model, data

import poptorch


def test_wrapped_models_can_be_opened_for_a_while():
    model = Model()
    executor = poptorch.trainingModel(model)
    poptorch._impl.unwrapModelIfNecessary(model)
    assert type(model) is Model and type(model.layer.weight) is torch.nn.Parameter
    poptorch._impl.rewrapModelIfNecessary(model)
    assert type(model).__bases__[0] is Model
    executor(*data())
    plain = Model()
    for change in (poptorch._impl.unwrapModelIfNecessary, poptorch._impl.rewrapModelIfNecessary):
        change(plain)
        assert type(plain) is Model


def test_wrapped_objects_have_their_own_class_as_first_base():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    poptorch.trainingModel(model)
    wrapped = [(model, torch.nn.Sequential), (model[0].weight, torch.nn.Parameter), (model[1].running_mean, torch.Tensor)]
    assert [type(value).__name__ for value, _ in wrapped] == ["PoptorchSequential", "PoptorchParameter", "PoptorchBuffer"]
    for value, own in wrapped:
        assert poptorch._impl.isWrapped(value) and type(value).__bases__[0] is own and isinstance(value, own)
        assert poptorch._impl.unwrapIfWrapped(value) is value and type(value) is own
        assert poptorch._impl.unwrapIfWrapped(value) is value  # others are left alone
    assert poptorch._impl.isWrapped(model[0].bias)  # it does not descend


def test_the_executor_shows_its_parts():
    executor = poptorch.inferenceModel(Model())
    assert executor._executable is None
    executor(data()[0])
    assert executor._executable
    assert executor._options.toDict()["replication_factor"] == 1


def test_capturing_can_be_asked_for():
    seen = []
    poptorch.inferenceModel(lambda x: seen.append((poptorch._impl.isDispatchTracing(), poptorch.isRunningOnIpu())) or x)(torch.ones(1))
    assert seen == [(True, True)] and not poptorch._impl.isDispatchTracing()


def test_allclose_compares_structures():
    same = ([torch.ones(1), (torch.zeros(2),)], [torch.ones(1) + 1e-9, (torch.zeros(2),)])
    assert poptorch.testing.allclose(*same)
    assert not poptorch.testing.allclose([torch.ones(1)], [torch.zeros(1)])
    assert not poptorch.testing.allclose([torch.ones(1)], [torch.ones(1)] * 2)


def test_trace_points_do_nothing_without_an_analyser():
    class Thing:
        def method(self):
            return 3

    channel = poptorch.profiling.Channel("name")
    with channel.tracepoint("label"):
        assert channel.instrument(Thing(), "method").method() == 3
