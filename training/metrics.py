"""Accuracy and loss, added up over batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

import torch
from torch.nn import functional as F


@dataclass
class Totals:
    """Sums over images; `top5` counts an image whose label is among the five best classes (all of them, where there are fewer)."""

    images: int = 0
    loss: float = 0.0
    top1: int = 0
    top5: int = 0

    def add_logits(self, logits: torch.Tensor, labels: torch.Tensor, is_real: torch.Tensor) -> None:
        """Take logits [N, classes] and labels [N] of the images that are real; the loss is plain cross entropy."""
        logits, labels = logits[is_real].float(), labels[is_real].long()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == labels[:, None]
        self.images += len(labels)
        self.loss += F.cross_entropy(logits, labels, reduction="sum").item()
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())

    def means(self) -> Dict[str, float]:
        """top1 and top5 in percent, and the loss for each image."""
        count = max(self.images, 1)
        return {"top1": 100 * self.top1 / count, "top5": 100 * self.top5 / count, "loss": self.loss / count}


@dataclass
class Window:
    """What happened since the last row of training.csv."""

    loss: float = 0.0
    micro_batches: int = 0
    hits: float = 0.0
    images: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, loss_sum: float, micro_batches: int, hits: float, images: int, seconds: float, data_seconds: float) -> None:
        """Take one call."""
        self.loss += loss_sum
        self.micro_batches += micro_batches
        self.hits += hits
        self.images += images
        self.seconds += seconds
        self.data_seconds += data_seconds

    def means(self) -> Dict[str, float]:
        """loss, accuracy in percent, images_per_second, data_wait in percent of the time."""
        return {
            "loss": self.loss / max(self.micro_batches, 1),
            "accuracy": 100 * self.hits / max(self.images, 1),
            "images_per_second": self.images / self.seconds if self.seconds else 0.0,
            "data_wait": 100 * self.data_seconds / self.seconds if self.seconds else 0.0,
        }
