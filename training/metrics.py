"""Accuracy and loss, added up over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, List, NamedTuple

import torch
from torch.nn import functional as F


class Scores:
    """Loss and hits of single images, added up exactly, so that sums do not depend on the order or on who computed what."""

    def __init__(self) -> None:
        self._rows: List[torch.Tensor] = []  # [images, 4]: loss, top-1, top-5, is real

    def add_logits(self, logits: torch.Tensor, labels: torch.Tensor, is_real: torch.Tensor) -> None:
        """Take logits [N, classes] and labels [N]; the loss is plain cross entropy, only real images count.

        Top-5 counts an image whose label is among the five best classes (all of them, where there are fewer).
        """
        logits, labels = logits.float(), labels.long()
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        losses = F.cross_entropy(logits, labels, reduction="none")
        self._rows.append(torch.stack([losses, hits[:, 0].float(), hits.any(dim=1).float(), is_real.float()], dim=1))

    def totals(self, gather: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows) -> Totals:
        """Sums over the real images, of all instances where `gather` joins their rows."""
        rows = gather(torch.cat(self._rows) if self._rows else torch.zeros(0, 4))
        loss, top1, top5, _ = rows[rows[:, 3] > 0].double().unbind(dim=1)
        return Totals(len(loss), math.fsum(loss.tolist()), int(top1.sum()), int(top5.sum()))


class Totals(NamedTuple):
    """Sums over images."""

    images: int
    loss: float
    top1: int
    top5: int

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
