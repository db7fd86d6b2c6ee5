"""Section 18.7: tensors of the CPU inside forward are computed with once, while compiling, and are constants of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shared_models import run_function as run
from torch import nn

import poptorch


class Counting(nn.Module):
    """A plain attribute that forward counts up; `returned` chooses what comes back."""

    def __init__(self, is_training=False):
        super().__init__()
        self.i = torch.zeros(1)
        self.w = nn.Parameter(torch.ones(1))
        self.is_training = is_training

    def forward(self, x):
        self.i += 1
        out = x * self.w + self.i.to(x.device)
        return (out, poptorch.identity_loss(out, reduction="sum")) if self.is_training else (out, self.i)


@pytest.mark.filterwarnings("ignore:.*on cpu.*")
def test_operations_among_cpu_tensors_run_once_in_inference():
    model = Counting()
    executor = poptorch.inferenceModel(model)
    results = [executor(torch.zeros(1)) for _ in range(3)]
    assert [(on_ipu.item(), on_cpu.item()) for on_ipu, on_cpu in results] == [(1, 1)] * 3
    assert model.i.item() == 1
    model.i.fill_(7)
    assert [value.item() for value in executor(torch.zeros(1))] == [1, 1]


def test_operations_among_cpu_tensors_run_once_in_training():
    model = Counting(is_training=True)
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    assert [executor(torch.zeros(1))[0].item() for _ in range(3)] == [1, 1, 1]
    assert model.i.item() == 1


def test_globals_and_closures_are_constants():
    closed_over, listed = torch.ones(2), [torch.ones(2)]
    executor = poptorch.inferenceModel(lambda x: x + closed_over.to(x.device) + torch.stack(listed).sum(0).to("ipu"))
    assert executor(torch.zeros(2)).tolist() == [2, 2]
    closed_over.add_(5)
    listed[0].zero_()
    assert executor(torch.zeros(2)).tolist() == [2, 2]


def test_each_use_of_a_cpu_tensor_sees_its_value_of_that_moment():
    table = torch.zeros(1)

    def forward(x):
        first = x + table.to(x.device)
        table.add_(1)
        second = x + table.to(x.device)
        table.add_(1)
        return first, second

    executor = poptorch.inferenceModel(forward)
    assert [value.item() for value in executor(torch.zeros(1))] == [0, 1]
    assert [value.item() for value in executor(torch.zeros(1))] == [0, 1] and table.item() == 2


def test_backward_passes_in_python_run_once_too():
    factor = torch.zeros(1)

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            factor.add_(1)
            return gradient * factor.to(gradient.device)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return poptorch.identity_loss(Scaled.apply(self.w) * x, reduction="sum")

    model = Model()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    for _ in range(3):
        executor(torch.ones(1))
    assert model.w.item() == -3 and factor.item() == 1  # a factor of 1 in each of three updates


def test_values_of_cpu_tensors_may_be_read():
    sizes = torch.tensor([2, 3])
    assert run(lambda x: x[: int(sizes[0])] * sizes.sum().item(), torch.ones(4)).tolist() == [5, 5]


def test_zeros_like_a_cpu_tensor_are_on_the_ipu():
    outside = torch.ones(2)
    assert run(lambda x: x + torch.zeros_like(outside) + torch.full_like(outside, 3), torch.ones(2)).tolist() == [4, 4]


def test_parameters_are_device_tensors_by_whatever_way_forward_finds_them():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.parts = [self.w]

        def forward(self, x):
            return poptorch.identity_loss(self.parts[0] * x, reduction="sum")

    model = Listed()
    executor = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    executor(torch.ones(1))
    assert model.w.item() == 0.5


@pytest.mark.parametrize("write", [lambda t, x: t.add_(x), lambda t, x: t.copy_(x), lambda t, x: t.__setitem__(0, x[0])])
def test_values_of_the_device_are_not_written_into_cpu_tensors(write):
    outside = torch.zeros(2)

    def forward(x):
        write(outside, x)
        return x * 1

    with pytest.raises(poptorch.Error, match="Expected an IPU tensor"):
        run(forward, torch.ones(2))
    assert outside.tolist() == [0, 0]


def test_cpu_tensors_that_meet_the_device_are_told(caplog):
    """On an IPU an error; who is lenient says so."""
    outside = torch.ones(2)
    try:
        assert run(lambda x: x + outside, torch.ones(2)).tolist() == [2, 2]
    except poptorch.Error as error:
        assert "Expected an IPU tensor" in str(error)
    else:
        assert any("on an IPU an error" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "make", [lambda: torch.LongTensor([1, 2]), lambda: torch.FloatTensor([1, 2]), lambda: torch.from_numpy(np.array([1, 2]))]
)
def test_legacy_constructors_make_cpu_tensors(make, caplog):
    with pytest.warns(UserWarning, match="cpu"):
        returned = run(lambda x: (x * 2, make() + 1), torch.ones(2))[1]
    assert returned.tolist() == [2, 3] and returned.dtype == make().dtype  # made on the CPU, nothing is narrowed
    assert run(lambda x: x + make().to(x.device), torch.ones(2)).tolist() == [2, 3]
    assert not any("A CPU tensor" in record.getMessage() for record in caplog.records)
    try:
        assert run(lambda x: x + make(), torch.ones(2)).tolist() == [2, 3]
    except poptorch.Error as error:
        assert "Expected an IPU tensor" in str(error)
    else:
        assert any("on an IPU an error" in record.getMessage() for record in caplog.records)


def test_returned_cpu_tensors_are_told_with_their_device():
    outside = torch.ones(2)
    with pytest.warns(UserWarning, match="cpu"):
        assert run(lambda x: (x * 2, outside), torch.ones(2))[1].tolist() == [1, 1]


# ---- reading values


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.sum().item(),
        lambda x: x * x.tolist()[0],
        lambda x: x * int(x.sum()),
        lambda x: x * float(x[0]),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: [1, 2, 3][x.to(torch.int32).sum()],
        lambda x: x.numpy(),
        lambda x: torch.tensor([x[0], 1.0]),
        lambda x: torch.Tensor([x[0], 1.0]),
        lambda x: torch.FloatTensor([x[0], 1.0]),
        lambda x: x.new([x[0], 1.0]),
        lambda x: torch.full((2,), x.sum()),
        lambda x: poptorch.for_loop(2, lambda v: v * v.sum().item(), [x])[0],
        lambda x: max(x[0], x[1]),
        lambda x: torch.equal(x, x),
        lambda x: 1.0 in x,
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_values_of_the_device_cannot_be_read(forward, dtype):
    with pytest.raises(poptorch.Error, match="reads the value of a tensor") as raised:
        run(forward, torch.ones(2, dtype=dtype))
    assert "\n" not in str(raised.value)


def test_values_cannot_be_read_in_a_backward_pass_either():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return poptorch.identity_loss(Reads.apply(self.w) * x, reduction="sum")

    with pytest.raises(poptorch.Error, match="reads the value of a tensor"):
        poptorch.trainingModel(Model())(torch.ones(1))


def test_printing_a_tensor_of_the_device_shows_no_value(capsys):
    def forward(x):
        print(f"{x} {x.sum():.2f}", x)
        return x * 2

    assert run(forward, torch.ones(2)).tolist() == [2, 2]
    assert capsys.readouterr().out.count("<unavailable>") == 3


def test_shapes_that_depend_on_values_are_torch_s_own_error():
    from torch._subclasses.fake_tensor import DynamicOutputShapeException

    with pytest.raises(DynamicOutputShapeException):
        run(lambda x: x[x > 0], torch.ones(2))
