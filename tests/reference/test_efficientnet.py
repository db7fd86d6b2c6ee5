"""Our EfficientNet against timm's own with copied weights, and losses and norms against torch."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional as F

from config import ModelConfig, load_preset
from models.factory import build_model
from models.task import Classifier, build_classifier, host_preparation


@pytest.mark.parametrize("size", ["b0", "b2"])
def test_depthwise_batch_norm_efficientnet_is_timms(size, generator):
    """tf_efficientnet: TensorFlow's padding and epsilon, depthwise, expansion 6; the same parameters in the same order."""
    theirs = timm.create_model(f"tf_efficientnet_{size}", pretrained=False).eval()
    config = ModelConfig(
        architecture=f"efficientnet-{size}", group_size=1, expand_ratio=6, norm="batch", norm_epsilon=1e-3, proxy_norm=False
    )
    ours = build_model(config, 1000).eval()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        assert mine.shape == other.shape
        mine.data.copy_(other.data)
    images = torch.randn(2, 3, 96, 96, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-4)  # other order of the same float32 sums


def test_layer_norm_is_torchs(generator):
    network = build_model(ModelConfig(architecture="efficientnet-cifar", norm="layer", proxy_norm=False), 10)
    norm, channels = network.bn1[0], 16
    x = torch.randn(2, channels, 5, 5, generator=generator)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.uniform_(-1, 1)
    expected = F.layer_norm(x, (channels, 5, 5), eps=1e-3) * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_normalisation_on_the_device_is_torchvisions(generator):
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)
    ours = Classifier(torch.nn.Identity(), torch.float32).prepare(images)
    theirs = normalize(images.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_papers_normalisation_subtracts_the_mean_alone(generator):
    """The constants of TensorFlow's ResNet examples; on the device and, without 8-bit I/O, on the host."""
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)
    expected = images.float() - torch.tensor([123.68, 116.78, 103.94]).view(1, 3, 1, 1)
    config = load_preset("tiny", {"pixel_normalisation": "mean", "precision": "32.32"})
    on_device = build_classifier(config.model, 10, config.precision).prepare(images)
    on_host = host_preparation(False, config.model, config.precision)
    assert torch.equal(on_device, expected) and on_host is not None and torch.equal(on_host(images), expected)
    assert load_preset("efficientnet-b2-g16-lnpn-16ipu", {}).model.pixel_normalisation == "mean"
