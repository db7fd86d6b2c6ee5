"""What the device compiles: uint8 images in, loss or logits out."""

from __future__ import annotations

from typing import Any, Callable, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional as F

import poptorch
from config import AugmentationConfig, ModelConfig, PrecisionConfig

from .augmentation import Cutmix, Labels, Mixup
from .factory import build_model
from .float32 import float32_buffers
from .freezing import train_only
from .pixels import NORMALISATIONS, colour_constant, normalised


class Classifier(nn.Module):
    """Normalisation on the device, and the network: uint8 (or already normalised) images [N, 3, H, W] to logits [N, classes]."""

    pixel_mean: torch.Tensor
    pixel_deviation: Optional[torch.Tensor]

    def __init__(self, network: nn.Module, compute_dtype: torch.dtype, pixel_normalisation: str = "mean-and-deviation") -> None:
        super().__init__()
        self.network = network
        self.compute_dtype = compute_dtype
        mean, deviation = NORMALISATIONS[pixel_normalisation]
        self.register_buffer("pixel_mean", colour_constant(mean), persistent=False)
        self.register_buffer("pixel_deviation", colour_constant(deviation) if deviation else None, persistent=False)

    def _apply(self, fn: Any, *arguments: Any) -> nn.Module:
        with float32_buffers(self):
            return super()._apply(fn, *arguments)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images, normalised, in the compute type; float images are taken as already normalised."""
        if images.dtype == torch.uint8:
            images = normalised(images, self.pixel_mean, self.pixel_deviation)
        return images.to(self.compute_dtype)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        return self.network(self.prepare(images)).float()


class TrainingTask(nn.Module):
    """Images and labels of a micro batch to (loss, number of images classified right), with mixup and cutmix on the device."""

    def __init__(self, classifier: Classifier, config: AugmentationConfig) -> None:
        super().__init__()
        self.classifier = classifier
        self.label_smoothing = config.label_smoothing
        self.mixup = Mixup(config.mixup_alpha) if config.mixup_alpha else None
        self.cutmix = Cutmix(config.cutmix_strength) if config.cutmix_strength else None

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """images uint8 [B, 3, H, W], labels int [B] -> loss float32 [], hits float32 [].

        A hit is an image whose best class is its own label, its larger part where images are mixed.
        """
        targets: Labels = [(labels.long(), torch.ones_like(labels, dtype=torch.float32))]
        pixels = self.classifier.prepare(images)
        if self.mixup is not None:
            pixels, targets = self.mixup(pixels, targets)
        if self.cutmix is not None:
            pixels, targets = self.cutmix(pixels, targets)
        logits = self.classifier.network(pixels).float()
        loss = smoothed_cross_entropy(logits, targets, self.label_smoothing)
        hits = (logits.detach().argmax(dim=1) == targets[0][0]).float().sum()
        return poptorch.identity_loss(loss, reduction="mean"), hits


def smoothed_cross_entropy(logits: torch.Tensor, targets: Labels, smoothing: float) -> torch.Tensor:
    """Cross entropy against mixed labels, for each image: float32 [N].

    The labelled class gets 1 - smoothing, every other class smoothing / (classes - 1). With p = log_softmax(logits), the loss for one
    label is -(1 - s) p_label - s / (K - 1) * (sum(p) - p_label).
    """
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    off = smoothing / (logits.shape[1] - 1)
    total = log_probabilities.sum(dim=1)
    loss = torch.zeros_like(total)
    for labels, weight in targets:
        own = log_probabilities.gather(1, labels[:, None]).squeeze(1)
        loss = loss - weight * ((1 - smoothing - off) * own + off * total)
    return loss


def build_classifier(config: ModelConfig, num_classes: int, precision: PrecisionConfig) -> Classifier:
    """A classifier with weights and activations in the types that the precision asks for."""
    classifier = Classifier(build_model(config, num_classes), compute_dtype(precision), config.pixel_normalisation)
    return classifier.half() if precision.is_half_master else classifier


def build_training_task(classifier: Classifier, config: ModelConfig, augmentation: AugmentationConfig) -> TrainingTask:
    """A task in training mode, in which only `trainable_layers` of the network train where the config names any.

    Raises:
        ValueError: a trainable layer does not exist.
    """
    task = TrainingTask(classifier, augmentation).train()
    if config.trainable_layers:
        train_only(classifier.network, config.trainable_layers)
    return task


def compute_dtype(precision: PrecisionConfig) -> torch.dtype:
    """Type of activations."""
    return torch.float16 if precision.is_half_compute else torch.float32


def host_preparation(
    eight_bit_io: bool, config: ModelConfig, precision: PrecisionConfig
) -> Optional[Callable[[torch.Tensor], torch.Tensor]]:
    """What the host does to uint8 images before they are sent: nothing, or, without 8-bit I/O, normalisation."""
    if eight_bit_io:
        return None
    mean, deviation = (colour_constant(values) if values else None for values in NORMALISATIONS[config.pixel_normalisation])
    assert mean is not None
    return lambda images: normalised(images, mean, deviation).to(compute_dtype(precision))
