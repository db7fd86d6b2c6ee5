"""Section 18.1 and 18.11: dicts, lists and tuples as arguments and results, subclasses included."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
from shared_models import options, run_function as run
from torch import nn

import poptorch


class Named(dict):
    """A dict class of a library's own."""


class Ordered(OrderedDict):
    """As above, with an order."""


class Listed(list):
    """A list class of a library's own."""


Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class ModelOutput(OrderedDict):
    """The pattern of model libraries' results: fields that are keys and attributes, made from a dict or from values."""

    loss: torch.Tensor = None
    logits: torch.Tensor = None

    def __post_init__(self):
        first = getattr(self, fields(self)[0].name)
        if isinstance(first, dict):
            for key, value in first.items():
                setattr(self, key, value)
            for field in fields(self):
                if field.name not in first:
                    setattr(self, field.name, None)
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)


def test_dicts_are_matched_by_key_in_every_later_call():
    seen = []

    def forward(batch):
        seen.append(list(batch))
        return batch["a"] - 10 * batch["b"]["c"]

    executor = poptorch.inferenceModel(forward, options(iterations=2))
    one, two = torch.full((2,), 1.0), torch.full((2,), 2.0)
    first = executor({"a": one, "b": {"c": two, "d": one}})
    second = executor({"b": {"d": one, "c": two}, "a": one})
    assert first.tolist() == second.tolist() == [-19, -19]
    assert seen == [["a", "b"]]  # the order of the call that was compiled


def test_keywords_are_matched_by_name_whatever_their_order():
    class Model(nn.Module):
        def forward(self, **batch):
            return batch["a"] - 10 * batch["b"]

    executor = poptorch.inferenceModel(Model())
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    assert executor(a=one, b=two).item() == executor(b=two, a=one).item() == -19


@pytest.mark.parametrize("cls", [dict, OrderedDict, Named, Ordered, ModelOutput])
def test_dict_classes_come_back_as_their_own(cls):
    result = run(lambda x: cls({"loss": x + 1, "logits": [x, x * 2]}), torch.ones(2))
    assert type(result) is cls and list(result) == ["loss", "logits"]
    assert result["loss"].tolist() == [2, 2] and result["logits"][1].tolist() == [2, 2]


def test_fields_of_a_model_output_are_attributes_too():
    result = run(lambda x: ModelOutput(logits=x * 3), torch.ones(2))
    assert result.logits.tolist() == [3, 3] and result.loss is None


def test_list_and_tuple_classes_come_back_as_their_own():
    result = run(lambda x: Listed([x, Pair(x + 1, (x + 2,)), x.view(1, 2).max(1)]), torch.ones(2))
    assert type(result) is Listed and type(result[1]) is Pair and type(result[2]) is torch.return_types.max
    assert result[1].second[0].tolist() == [3, 3] and result[2].values.item() == 1


@pytest.mark.parametrize("cls", [Named, ModelOutput])
def test_forward_gets_arguments_of_their_own_class(cls):
    seen = []

    def forward(batch):
        seen.append(type(batch))
        return batch["loss"] * 2

    executor = poptorch.inferenceModel(forward)
    assert [executor(cls({"loss": torch.full((1,), value)})).item() for value in (1.0, 2.0)] == [2, 4]
    assert seen == [cls]


def test_a_training_model_may_return_a_model_output():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            out = self.w * x
            return ModelOutput(loss=poptorch.identity_loss(out, reduction="mean"), logits=out)

    model = Model()
    result = poptorch.trainingModel(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))(torch.ones(2))
    assert type(result) is ModelOutput and result.loss.item() == 1 and model.w.item() == 0


class Holder:
    def __init__(self, value):
        self.inner = {"deep": [value]}


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("make", [Holder, Slotted, lambda x: {"a": (Holder(x),)}, lambda x: {x}, lambda x: Holder(Holder(x))])
def test_objects_that_hide_tensors_are_no_results(make):
    with pytest.raises(poptorch.Error, match="registerCustomArgParser"):
        run(make, torch.ones(2))


def test_objects_without_tensors_come_back_unchanged():
    thing = Holder(3)
    assert run(lambda x: (x, thing), torch.ones(2))[1] is thing


class HolderParser(poptorch.ICustomArgParser):
    def yieldTensors(self, struct):
        yield struct.inner["deep"][0]

    def reconstruct(self, original_structure, tensor_iterator):
        return type(original_structure)(next(tensor_iterator))


class Derived(Holder):
    pass


class DerivedParser(HolderParser):
    def reconstruct(self, original_structure, tensor_iterator):
        return Derived(next(tensor_iterator))


def test_a_parser_of_the_exact_class_goes_before_one_of_its_bases():
    poptorch.registerCustomArgParser(Holder, HolderParser())
    poptorch.registerCustomArgParser(Derived, DerivedParser())
    try:
        result = run(lambda x: [Derived(x), Holder(x * 2)], torch.ones(1))
    finally:
        poptorch.registerCustomArgParser(Holder, None)
        poptorch.registerCustomArgParser(Derived, None)
    assert type(result[0]) is Derived and result[1].inner["deep"][0].item() == 2
