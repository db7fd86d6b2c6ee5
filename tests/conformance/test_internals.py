"""Section 15: internals that other projects reach into, and the helpers of section 8.5."""

from __future__ import annotations

import torch
from shared_models import Model, data

import poptorch


def test_wrapped_models_can_be_opened_for_a_while():
    model = Model()
    executor = poptorch.trainingModel(model)
    owner = poptorch._impl.unwrapModelIfNecessary(model)
    assert type(model) is Model
    poptorch._impl.rewrapModelIfNecessary(model, owner)
    assert type(model).__bases__[1] is Model or type(model).__bases__[0] is Model
    executor(*data())


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
