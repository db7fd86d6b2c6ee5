"""What stays float32 in a model of half weights: constants and running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import poptorch
from config import load_preset
from models.augmentation import Mixup, mixup_quantiles
from models.norm import BatchNorm2d
from models.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN
from models.proxy_norm import ProxyNormAct, gaussian_quantiles
from models.task import Classifier, build_classifier, build_training_task

MODULES = {
    "classifier": lambda: Classifier(torch.nn.Identity(), torch.float16),
    "mixup": lambda: Mixup(0.2),
    "proxy norm": lambda: ProxyNormAct(3, 1, 1e-3, 0.03),
    "batch norm": lambda: BatchNorm2d(3),
}


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.bfloat16, lambda module: module.to(torch.float16)])
def test_a_conversion_narrows_weights_alone(kind, convert):
    module = MODULES[kind]()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    convert(torch.nn.Sequential(copy.deepcopy(module), module))
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]) and buffer.dtype == before[name].dtype
    assert all(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters())


def test_float64_is_taken_on():
    assert ProxyNormAct(3, 1, 1e-3, 0.03).double().quantiles.dtype == torch.float64


def test_constants_of_a_16_16_task_are_the_stated_ones():
    config = load_preset("tiny", {"precision": "16.16"})
    task = build_training_task(build_classifier(config.model, 10, config.precision), config.model, config.augmentation)
    assert all(parameter.dtype == torch.float16 for parameter in task.parameters())
    for whole in (task, task.half()):
        assert whole.classifier.pixel_mean.flatten().tolist() == torch.tensor(IMAGENET_MEAN).tolist()
        assert whole.classifier.pixel_deviation.flatten().tolist() == torch.tensor(IMAGENET_DEVIATION).tolist()
        assert torch.equal(whole.mixup.quantiles, mixup_quantiles(config.augmentation.mixup_alpha))
        assert torch.equal(whole.classifier.network.bn1.quantiles, gaussian_quantiles())


def test_batch_norm_in_16_16_keeps_a_variance_beyond_half(generator):
    """Deviation 400: variance 160,000, where half ends at 65,504. Against torch's own batch norm in float64, eager and on the device."""
    images = 400 * torch.randn(8, 3, 16, 16, generator=generator).half()
    norm = BatchNorm2d(3, momentum=1.0).half()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    on_device = copy.deepcopy(norm)
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    expected = F.batch_norm(images.double(), mean, variance, norm.weight.double(), norm.bias.double(), True, 1.0, norm.eps)
    assert variance.min() > 65_504
    out = norm(images)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), expected, atol=8e-3, rtol=0)  # the result's rounding: 2^-11 of up to 8
    poptorch.trainingModel(Summed(on_device), optimizer=poptorch.optim.SGD(on_device.parameters(), lr=0.0))(images)
    for module in (norm, on_device):
        torch.testing.assert_close(module.running_var.double(), variance, rtol=1e-5, atol=0)
        torch.testing.assert_close(module.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    stored = norm.eval()(images)
    assert torch.isfinite(stored).all() and stored.float().std() > 0.5


class Summed(torch.nn.Module):
    """A loss after a norm."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, images):
        return poptorch.identity_loss(self.norm(images).float().square().mean(), reduction="none")


def convolves_half() -> bool:
    """Whether this torch has half convolutions on the CPU (2.0.1 has not)."""
    try:
        F.conv2d(torch.zeros(1, 1, 1, 1).half(), torch.zeros(1, 1, 1, 1).half())
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not convolves_half(), reason="this torch has no half convolution on the CPU")
def test_a_16_16_batch_norm_network_runs_in_eager_torch(generator):
    config = load_preset("tiny", {"precision": "16.16", "norm": "batch", "proxy_norm": False})
    classifier = build_classifier(config.model, 10, config.precision).train()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    classifier(images).sum().backward()
    statistics = [buffer for name, buffer in classifier.named_buffers() if "running" in name]
    assert statistics and all(buffer.dtype == torch.float32 for buffer in statistics)
    assert torch.isfinite(classifier.eval()(images)).all()
