"""One call of the training model: hyperparameters in, sums out, the same on every instance."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import torch

from config import BatchConfig

from .errors import TrainingError
from .instances import gather
from .parts import TrainingProgram
from .schedule import Rates


@dataclass(frozen=True)
class StepResult:
    """What a call has computed, over the replicas of all instances.

    Attributes:
        loss_sum: sum over its micro batches of their mean losses.
        hits: images classified right.
        seconds: by the clock of this instance, from the call to the gathered sums.
        ballots: the instances' votes on stopping [replicas].
    """

    loss_sum: float
    micro_batches: int
    hits: float
    images: int
    seconds: float
    ballots: torch.Tensor


class Step:
    """Calls the training model with the learning rate and loss scale of the moment."""

    def __init__(self, program: TrainingProgram, batch: BatchConfig, rates: Rates) -> None:
        self._executor, self._optimizer = program.executor, program.optimizer
        self._batch, self._rates = batch, rates
        self._random: Optional[List[int]] = None  # of a checkpoint, until the device can take it
        self.updates = batch.device_iterations
        self.updates_per_epoch = program.order.calls_per_epoch * self.updates
        self.images_per_update = batch.images_per_update

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, update: int, ballot: float = 0.0) -> StepResult:
        """Train on images [images_per_call, 3, H, W] of this instance's replicas and their labels, after so many updates.

        The ballot, a number that every instance may give, comes along with the sums, so that a call needs one exchange.

        Raises:
            TrainingError: the loss is not finite.
        """
        self._set_hyperparameters(update)
        self.compile(images, labels)
        start = time.perf_counter()
        loss, hits = self._executor(images, labels)
        ballots = torch.full_like(loss.reshape(-1), ballot)
        by_replica = gather(torch.stack([loss.reshape(-1), hits.reshape(-1), ballots], dim=1))
        loss_sum, hit_sum = float(by_replica[:, 0].contiguous().sum()), float(by_replica[:, 1].sum())
        seconds = time.perf_counter() - start
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is not finite after update {update}: lower base_learning_rate or loss_scaling; earlier checkpoints are kept"
            )
        images_per_call = self._batch.images_per_call
        return StepResult(loss_sum, images_per_call // self._batch.micro_batch_size, hit_sum, images_per_call, seconds, by_replica[:, 2])

    def compile(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Compile for batches of this shape where that is not done, and take up the device's random numbers of a checkpoint."""
        if self._executor.isCompiled():
            return
        self._executor.compile(images, labels)
        if self._random is not None:
            self._executor.rng_state, self._random = self._random, None

    def go_on_from(self, random: List[int]) -> None:
        """Draw on from these random numbers of the device."""
        self._random = random

    @property
    def random(self) -> Optional[List[int]]:
        """The device's random numbers, for a checkpoint; None before the device has any."""
        return self._executor.rng_state

    def epoch_of(self, update: float) -> float:
        """Epochs after so many updates."""
        return update / self.updates_per_epoch

    def hyperparameters(self) -> Dict[str, Any]:
        """Learning rate and loss scale of the last call, for a log; an automatic scale is known to the device alone."""
        is_known = self._rates.optimizer.loss_scaling_mode != "automatic"
        scale = self._optimizer.loss_scaling if is_known else "automatic"
        return {"learning_rate": self._optimizer.param_groups[0]["lr"], "loss_scale": scale}

    def _set_hyperparameters(self, update: int) -> None:
        """Learning rate and loss scale of the coming call, at the middle of its updates."""
        now, optimizer = self._rates.at(self.epoch_of(update + self.updates / 2)), self._optimizer
        if optimizer.param_groups[0]["lr"] == now.learning_rate and optimizer.loss_scaling == now.loss_scale:
            return
        for group in optimizer.param_groups:
            group["lr"] = now.learning_rate
        optimizer.loss_scaling = now.loss_scale
        self._executor.setOptimizer(optimizer)
