"""Section 8.1: loops, branches, host code and slices inside forward."""

from __future__ import annotations

import pytest
import torch
from shared_models import run_function as run
from torch import nn

import poptorch

# ---- loops and branches


def test_a_loop_runs_its_body_and_captures_it_once():
    calls = []

    def body(x, y):
        calls.append(1)
        x.add_(1)  # a copy: the input keeps its value
        return x * 2, y + x

    x, y = torch.ones(2), torch.zeros(2)
    results = run(lambda x, y: (poptorch.for_loop(3, body, [x, y]), x * 1), x, y)
    expected_x, expected_y = torch.ones(2), torch.zeros(2)
    for _ in range(3):
        expected_x, expected_y = (expected_x + 1) * 2, expected_y + expected_x + 1
    assert calls == [1]
    assert torch.equal(results[0][0], expected_x) and torch.equal(results[0][1], expected_y) and torch.equal(results[1], x)


def test_a_loop_reads_tensors_of_the_outer_scope_and_nests():
    weight = torch.tensor([2.0, 3.0])

    def forward(x, z):
        inner = lambda value: value * weight  # noqa: E731
        return poptorch.for_loop(2, lambda value: poptorch.for_loop(2, inner, [value])[0] + z, [x])[0]

    x, z = torch.ones(2), torch.tensor([1.0, 5.0])
    expected = ((x * weight**2) + z) * weight**2 + z
    assert torch.equal(run(forward, x, z), expected)


@pytest.mark.parametrize("condition", [True, False])
def test_a_branch_is_chosen_on_the_device(condition):
    calls = []

    def then_body(x):
        calls.append("then")
        return x + 1

    def else_body(x, y):
        calls.append("else")
        return x * y

    forward = lambda c, x, y: poptorch.cond(c, then_body, [x], else_body, [x, y])[0]  # noqa: E731
    x, y = torch.tensor([3.0]), torch.tensor([5.0])
    result = run(forward, torch.tensor([condition]), x, y)
    assert result.item() == (4 if condition else 15)
    assert calls == ["then", "else"]  # both are captured
    assert forward(torch.tensor(condition), x, y).item() == result.item()  # on the host a plain if


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_branches_nest(outer, inner):
    def forward(x, c, d):
        def then_body(value):
            return poptorch.cond(d, lambda v: v + 1, [value], lambda v: v + 2, [value])[0]

        def else_body(value):
            return poptorch.cond(d, lambda v: v + 3, [value], lambda v: v + 4 * x, [value])[0]  # x: of the outer scope

        return poptorch.cond(c, then_body, [x * 10], else_body, [x * 10])[0]

    x, conditions = torch.ones(1), (torch.tensor([outer]), torch.tensor([inner]))
    assert run(forward, x, *conditions).item() == {(1, 1): 11, (1, 0): 12, (0, 1): 13, (0, 0): 14}[outer, inner]


def collatz(value):
    """One body for several loops: the next number, by a branch whose branches branch and loop again."""
    is_even = (value % 2 == 0).all()

    def odd(v):
        (tripled,) = poptorch.for_loop(2, lambda w: w + v, [v])  # v + v + v
        return poptorch.cond((tripled > 0).all(), lambda t: t + 1, [tripled], lambda t: t - 1, [tripled])[0]

    return poptorch.cond(is_even, lambda v: torch.div(v, 2, rounding_mode="floor"), [value], odd, [value])[0]


@pytest.mark.parametrize("start", [7, 12, 27])
def test_branches_in_loops_in_loops_look_at_their_condition_every_time(start):
    def forward(x):
        (once,) = poptorch.for_loop(3, collatz, [x])
        (twice,) = poptorch.for_loop(2, lambda v: poptorch.for_loop(2, collatz, [v]), [x])
        return once, twice, collatz(x)

    number, numbers = start, []
    for _ in range(4):
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        numbers.append(number)
    results = run(forward, torch.tensor([start], dtype=torch.int32))
    assert [result.item() for result in results] == [numbers[2], numbers[3], numbers[0]]


class Normed(nn.Module):
    """A norm in the body of a loop or branch; x has mean 2, and the statistics are those of the last batch."""

    def __init__(self, wrap):
        super().__init__()
        self.norm, self.wrap = nn.BatchNorm1d(1, momentum=1.0), wrap

    def forward(self, x):
        def body(value):
            self.norm(value)
            return value * 2, self.norm.running_mean + value * 0

        (_, inside) = self.wrap(body, x)
        return inside[0], self.norm.running_mean * 1


def in_a_loop(body, x):
    return poptorch.for_loop(2, lambda value, seen: body(value), [x, x])


def in_a_branch(body, x):
    return poptorch.cond(x.sum() > 0, lambda v: body(v), [x], lambda v: (v, v), [x])


def in_a_loop_in_a_branch(body, x):
    return poptorch.cond(x.sum() > 0, lambda v: in_a_loop(body, v), [x], lambda v: (v, v), [x])


@pytest.mark.parametrize(
    ("wrap", "inside", "last"),
    [(in_a_loop, 2, 4), (in_a_branch, 0, 2), (in_a_loop_in_a_branch, 2, 4)],  # means of the norm's batches: 2, then 4
)
def test_statistics_of_a_norm_in_a_body_are_those_of_before(wrap, inside, last):
    executor = poptorch.inferenceModel(Normed(wrap).train())
    x = torch.tensor([[1.0], [3.0]])
    assert [value.item() for value in executor(x)] == [inside, 0]  # behind the body: from before it
    assert [value.item() for value in executor(x)] == [inside if wrap is not in_a_branch else 2, last]


def test_loops_and_branches_check_what_they_get():
    x = torch.ones(2)
    with pytest.raises(ValueError, match="^Object is not list"):
        run(lambda x: poptorch.for_loop(2, lambda v: v, x), x)
    with pytest.raises(ValueError, match="^Object contained in list at index 1 is not torch.tensor"):
        run(lambda x: poptorch.for_loop(2, lambda v, w: (v, w), [x, 3]), x)
    with pytest.raises(ValueError, match="^Object is not list"):
        run(lambda x: poptorch.cond(x.sum() > 0, lambda v: v, (x,), lambda v: v, [x]), x)


@pytest.mark.parametrize("name", ["for_loop", "cond"])
def test_loops_and_branches_are_for_inference(name):
    def forward(x):
        if name == "for_loop":
            x = poptorch.for_loop(2, lambda v: v * 2, [x])[0]
        else:
            x = poptorch.cond(x.sum() > 0, lambda v: v, [x], lambda v: v, [x])[0]
        return poptorch.identity_loss(x, reduction="sum")

    with pytest.raises(poptorch.Error, match=rf"poptorch.{name}\(\) is only supported"):
        run(forward, torch.ones(2), training=True)


def test_bodies_return_tensors():
    with pytest.raises(poptorch.Error, match="returns tensors"):
        run(lambda x: poptorch.for_loop(2, lambda v: 3, [x]), torch.ones(1))


def test_what_a_body_takes_and_gives_from_the_cpu_is_a_constant():
    outside = torch.ones(2)

    def forward(x):
        (sent,) = poptorch.for_loop(2, lambda v: v * 2, [outside])
        return poptorch.cond(x.sum() > 0, lambda v: v * 1, [x], lambda v: outside, [x])[0] + sent

    executor = poptorch.inferenceModel(forward)
    assert executor(torch.zeros(2)).tolist() == [5, 5]
    outside.zero_()
    assert executor(torch.zeros(2)).tolist() == [5, 5]


# ---- the host in the middle of forward


def test_host_code_runs_for_every_micro_batch():
    seen = []

    def on_host(x):
        seen.append((poptorch.isRunningOnIpu(), x.sum().item()))
        return x * float(x.sum().item())  # a value of the tensor: not possible on the device

    operation = poptorch.CPU(on_host, "MyCPUOp")
    options = poptorch.Options().deviceIterations(3)
    seen_before = len(seen)
    result = run(lambda x: operation(x + 1) * 2, torch.tensor([[0.0], [1.0], [2.0]]), options=options)
    assert result.flatten().tolist() == [2.0, 8.0, 18.0]
    assert seen[-3:] == [(False, 1.0), (False, 2.0), (False, 3.0)] and len(seen) > seen_before


def test_host_code_sees_the_types_of_the_device():
    seen = []

    def on_host(x, y):
        seen.append((x.dtype, y.dtype))
        return x * 3, y.half()

    operation = poptorch.CPU(on_host, "types")
    first, second = run(lambda x, y: [value + 1 for value in operation(x + 1, y)], torch.ones(2).half(), torch.ones(2))
    assert set(seen) == {(torch.float16, torch.float32)}
    assert first.dtype == second.dtype == torch.float16 and first.tolist() == [7, 7] and second.tolist() == [2, 2]


def test_host_modules_do_not_train():
    layer = nn.Linear(2, 2)
    operation = poptorch.CPU(layer, "layer")
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    x = torch.ones(1, 2)
    torch.testing.assert_close(run(lambda x: operation(x), x), layer(x))


# ---- slices


def test_dynamic_slices():
    x = torch.arange(12.0).view(6, 2)
    for start in (0, 1, 3):
        position = torch.tensor([start])
        assert torch.equal(run(lambda x, i: poptorch.dynamic_slice(x, 0, i, 3, 1), x, position), x[start : start + 3])
        assert torch.equal(run(lambda x, i: x[i : i + 2], x, torch.tensor([start])), x[start : start + 2])


def test_dynamic_updates():
    x, y = torch.zeros(4, 2), torch.ones(2, 2)
    result = run(lambda x, y, i: poptorch.dynamic_update(x, y, 0, i, 2), x, y, torch.tensor([1]))
    assert result.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x, i: x[i : i + 0], "Taking a slice of"),
        (lambda x, i: x[i : i - 1], "Taking a slice of"),
        (lambda x, i: x[i : i + 4], "The size of the"),
        (lambda x, i: x[i:5], "The start and end"),
        (lambda x, i: poptorch.dynamic_slice(x, 0, 1, 2, 1), "start must be"),
        (lambda x, i: poptorch.dynamic_update(x, x[:2, 0], 0, i, 2), "input and src tensors"),
        (lambda x, i: poptorch.dynamic_update(x, x[:2].half(), 0, i, 2), "input and src tensor"),
    ],
)
def test_slices_that_cannot_be(forward, message):
    with pytest.raises(poptorch.Error, match=message):
        run(forward, torch.zeros(6, 2), torch.tensor([1]))
