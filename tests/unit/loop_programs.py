"""Programs that a trainer drives without the IPU Model and without a network: what an executor, batches and an optimizer have to do."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from config import load_preset
from training.averaging import WeightAverage
from training.parts import TrainingProgram, ValidationProgram
from training.run import Run
from training.schedule import Rates
from training.step import Step
from training.stopping import Interrupt, StopVote
from training.trainer import Trainer
from training.validation import Validator

CALLS = 3  # in an epoch
CLASSES = ["a", "b"]


@dataclass
class Device:
    """What two executors share, and the test looks at."""

    holder: object = None
    calls: list = field(default_factory=list)  # (epoch, call, learning rate)
    interrupt: Interrupt = field(default_factory=Interrupt)
    stop_after: int = 0  # calls
    loss_of: object = lambda weight: 1 / (1 + weight)


class Attaching:
    """The half of an executor that takes and gives the device."""

    def __init__(self, device):
        self.device, self.compiled = device, False

    def isCompiled(self):
        return self.compiled

    def isAttachedToDevice(self):
        return self.device.holder is self

    def attachToDevice(self):
        assert self.device.holder is None, "the device is taken"
        self.device.holder = self

    def detachFromDevice(self):
        assert self.device.holder is self
        self.device.holder = None


class TrainingExecutor(Attaching):
    """A call adds learning rate x the image to the weight, and draws one random number."""

    def __init__(self, device, network):
        super().__init__(device)
        self.network, self.weight, self.rng_state, self.rate = network, None, [0], None

    def compile(self, images, labels):
        self.compiled, self.weight = True, float(self.network.weight.detach())
        self.attachToDevice()

    def setOptimizer(self, optimizer):
        self.rate = optimizer.param_groups[0]["lr"]

    def copyWeightsToHost(self):
        with torch.no_grad():
            self.network.weight.fill_(self.weight)

    def __call__(self, images, labels):
        assert self.device.holder is self
        epoch, call = (int(value) for value in images[:2])
        self.device.calls.append((epoch, call, self.rate))
        self.rng_state = [self.rng_state[0] + 1]
        self.weight += self.rate * (1 + call) + self.rng_state[0] / 1024
        if len(self.device.calls) == self.device.stop_after:
            self.device.interrupt.signal_number = 2
        return torch.tensor([self.device.loss_of(self.weight)]), torch.tensor([1.0])


class InferenceExecutor(Attaching):
    """Class 0 for every image while the weight is below 1, then class 1."""

    def __init__(self, device, network):
        super().__init__(device)
        self.network, self.weight = network, None

    def compile(self, images):
        self.compiled = True
        self.attachToDevice()
        self.copyWeightsToDevice()

    def copyWeightsToDevice(self):
        self.weight = float(self.network.weight.detach())

    def __call__(self, images):
        if self.device.holder is None:
            self.attachToDevice()
            self.copyWeightsToDevice()
        assert self.device.holder is self
        best = int(self.weight >= 1)
        return torch.eye(2)[[best] * len(images)]


class Optimizer:
    def __init__(self):
        self.param_groups, self.loss_scaling, self.seen = [{"lr": -1.0}], 1.0, 0

    def state_dict(self):
        return {"lr": self.param_groups[0]["lr"]}

    def load_state_dict(self, state):
        self.param_groups[0]["lr"] = state["lr"]


@dataclass
class Order:
    epoch: int = 0
    first_call: int = 0
    calls_per_epoch: int = CALLS


class TrainingBatches:
    """Images that say their epoch and call."""

    classes = CLASSES

    def __init__(self, order):
        self.order = order

    def __iter__(self):
        for call in range(self.order.first_call, CALLS):
            yield torch.tensor([self.order.epoch, call]), torch.zeros(1), torch.ones(1, dtype=torch.bool)


class ValidationBatches:
    """Four images, one of which is class 0."""

    classes = CLASSES

    def __iter__(self):
        yield torch.zeros(4), torch.tensor([0, 1, 1, 1]), torch.ones(4, dtype=torch.bool)


def network():
    made = nn.Linear(1, 1, bias=False, dtype=torch.float64)  # in which the executors' floats come back as they were
    with torch.no_grad():
        made.weight.zero_()
    return made


def trainer_in(folder, device, **fields):
    """A trainer of the two programs above, with a run in a folder."""
    fixed = dict(epochs=2, log_every_steps=1, micro_batch_size=3, replicas=1, gradient_accumulation=1, averaging="none", pipeline_splits=())
    config = load_preset("tiny", {**fixed, **fields})
    order, own, validated = Order(), network(), network()
    training = TrainingProgram(TrainingExecutor(device, own), own, Optimizer(), TrainingBatches(order), order)
    validation = ValidationProgram(InferenceExecutor(device, validated), validated, ValidationBatches())
    step = Step(training, config.batch, Rates(config.schedule, config.optimizer, config.learning_rate))
    average = WeightAverage(config.averaging, config.schedule.epochs)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return Trainer(training, step, StopVote(device.interrupt), Validator(validation), average, Run(config, folder))
