"""The training loop: epochs of calls, with validation, averages and checkpoints at their ends."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import torch
from torch import nn

from config import Config

from .averaging import WeightAverage
from .checkpoint import BEST, LAST, plain_config, save_checkpoint
from .errors import TrainingError
from .evaluation import evaluate
from .instances import gather, is_alone, is_first, share_buffers, wait_for_all
from .interrupt import Interrupt
from .metrics import Window
from .run_log import RunLog
from .schedule import is_due, learning_rate, loss_scale


@dataclass(frozen=True)
class Parts:
    """What a trainer works with, made by the entry point.

    Attributes:
        training_model: executor of the task; outputs are (loss, hits) summed over the micro batches of a call.
        network: the module inside it whose weights are kept.
        validation_model: executor of a network of its own.
        validation_network: that network.
        order: `epoch` and `first_call` say where the training loader begins.
    """

    training_model: Any
    network: nn.Module
    optimizer: Any
    training_loader: Any
    order: Any
    validation_model: Any
    validation_network: nn.Module
    validation_loader: Any


@dataclass
class Position:
    """Where a run is: epochs and calls that are done, weight updates so far, and the best validation result."""

    epoch: int = 0
    call: int = 0
    update: int = 0
    seconds: float = 0.0
    best_top1: float = -1.0
    best_epoch: int = 0
    window: Window = field(default_factory=Window)


class Trainer:
    """Trains, validates and keeps a run in its folder; `restore` continues from a checkpoint.

    Every instance runs one; what they do next depends only on what all of them know, and the first one writes.
    """

    def __init__(self, config: Config, parts: Parts, folder: Path) -> None:
        self._config, self._parts, self._folder = config, parts, folder
        self._position = Position()
        self._average = WeightAverage(config.averaging, config.schedule.epochs)
        self._log = RunLog(config, folder, is_first())
        self._interrupt = Interrupt()
        self._stop_signal = 0  # that some instance got, as all of them know
        self._device_random: Optional[Any] = None
        self._calls_per_epoch = parts.order.calls_per_epoch
        self._updates_per_epoch = self._calls_per_epoch * config.batch.device_iterations

    # ---- checkpoints

    def restore(self, payload: Dict[str, Any]) -> None:
        """Take everything from a checkpoint's payload."""
        self._parts.network.load_state_dict(payload["model"])
        self._parts.optimizer.load_state_dict(payload["optimizer"])
        self._average.load_state_dict(payload["averaging"])
        self._device_random = payload["device_random"]
        position = dict(payload["position"])
        self._position = Position(**{**position, "window": Window(**position["window"])})
        self._log.restore(payload)

    def _payload(self) -> Dict[str, Any]:
        self._parts.training_model.copyWeightsToHost()
        classes = list(self._parts.training_loader.classes)
        return {
            "config": {"preset": self._config.preset, **plain_config(self._config)},
            "num_classes": len(classes),
            "classes": classes,
            "model": {name: value.clone() for name, value in self._parts.network.state_dict().items()},
            "optimizer": self._parts.optimizer.state_dict(),
            "averaging": self._average.state_dict(),
            "device_random": self._parts.training_model.rng_state,
            "position": dataclasses.asdict(self._position),
            **self._log.rows,
        }

    def _save(self, *names: str) -> None:
        if is_first():
            payload = self._payload()
            for name in names:
                save_checkpoint(self._folder / "checkpoints" / name, payload)
        wait_for_all()  # whoever ends now ends with a checkpoint

    # ---- the run

    def run(self) -> Tuple[Dict[str, Any], int]:
        """Train to the end, or until a signal.

        Returns:
            The summary, and the exit code: 0, or 128 + signal after a checkpoint was written.

        Raises:
            TrainingError: a loss is not finite, or a file cannot be written.
        """
        position, epochs = self._position, self._config.schedule.epochs
        self._log.begin(position.update, self._updates_per_epoch)
        with self._interrupt:
            try:
                while position.epoch < epochs and not self._is_stopping():
                    self._train_epoch()
                    if not self._is_stopping():
                        self._finish_epoch()
                if self._stop_signal:
                    self._save(LAST)
                return self._summary(), 128 + self._stop_signal if self._stop_signal else 0
            finally:
                self._log.end()

    def _train_epoch(self) -> None:
        position = self._position
        self._parts.order.epoch, self._parts.order.first_call = position.epoch, position.call
        every = self._config.run.checkpoint_every_steps
        for images, labels, data_seconds in self._timed_batches():
            self._train_call(images, labels, data_seconds)
            done, before = position.update, position.update - self._config.batch.device_iterations
            if self._is_stopping():
                return
            if every and done // every > before // every:
                self._save(LAST)

    def _timed_batches(self) -> Iterator[Tuple[torch.Tensor, torch.Tensor, float]]:
        if self._position.call >= self._calls_per_epoch:  # stopped between the last call of an epoch and its end
            self._parts.order.first_call = 0
            images, labels, _ = next(iter(self._parts.training_loader))
            self._compile(images, labels)
            return
        batches = iter(self._parts.training_loader)
        while True:
            start = time.perf_counter()
            item = next(batches, None)
            if item is None:
                return
            yield item[0], item[1], time.perf_counter() - start

    def _train_call(self, images: torch.Tensor, labels: torch.Tensor, data_seconds: float) -> None:
        position, batch, model = self._position, self._config.batch, self._parts.training_model
        self._set_hyperparameters()
        self._compile(images, labels)
        start = time.perf_counter()
        loss_sum, hits = self._gathered(*model(images, labels))
        seconds = time.perf_counter() - start + data_seconds
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is not finite after update {position.update}: lower base_learning_rate or loss_scaling; earlier checkpoints are "
                f"kept in {self._folder / 'checkpoints'}"
            )
        micro_batches = batch.images_per_call // batch.micro_batch_size
        position.window.add(loss_sum, micro_batches, hits, batch.images_per_call, seconds, data_seconds)
        position.seconds += seconds
        position.call += 1
        position.update += batch.device_iterations
        self._log.advance(batch.device_iterations)
        self._log_if_due()

    def _gathered(self, loss: torch.Tensor, hits: torch.Tensor) -> Tuple[float, float]:
        """Sums over the replicas of all instances; and all instances agree whether to stop."""
        signals = torch.full_like(loss.reshape(-1), float(self._interrupt.signal_number or 0))
        by_replica = gather(torch.stack([loss.reshape(-1), hits.reshape(-1), signals], dim=1))
        self._stop_signal = int(by_replica[:, 2].max())
        return float(by_replica[:, 0].contiguous().sum()), float(by_replica[:, 1].sum())

    def _is_stopping(self) -> bool:
        """Whether a signal came: at once where this instance is alone, otherwise when all have agreed on it."""
        if is_alone():
            self._stop_signal = self._interrupt.signal_number or 0
        return bool(self._stop_signal)

    def _compile(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Compile for batches of this shape where that is not done, and take up the device's random numbers of a checkpoint."""
        model = self._parts.training_model
        if not model.isCompiled():
            model.compile(images, labels)
            if self._device_random is not None:
                model.rng_state = self._device_random

    def _set_hyperparameters(self) -> None:
        """Learning rate and loss scale of the coming call, at the middle of its updates."""
        config, optimizer = self._config, self._parts.optimizer
        epoch = (self._position.update + config.batch.device_iterations / 2) / self._updates_per_epoch
        rate = learning_rate(config.schedule, config.learning_rate, epoch)
        scale = loss_scale(config.optimizer, epoch / config.schedule.epochs)
        if optimizer.param_groups[0]["lr"] == rate and optimizer.loss_scaling == scale:
            return
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.loss_scaling = scale
        self._parts.training_model.setOptimizer(optimizer)

    def _log_if_due(self) -> None:
        position, every = self._position, self._config.run.log_every_steps
        iterations = self._config.batch.device_iterations
        is_last = position.call == self._calls_per_epoch
        if position.update // every == (position.update - iterations) // every and not is_last:
            return
        row = {"update": position.update, "epoch": round(position.update / self._updates_per_epoch, 4), **position.window.means()}
        row["learning_rate"] = self._parts.optimizer.param_groups[0]["lr"]
        is_known = self._config.optimizer.loss_scaling_mode != "automatic"
        row["loss_scale"] = self._parts.optimizer.loss_scaling if is_known else "automatic"
        self._log.add_training(row)
        position.window = Window()

    # ---- ends of epochs

    def _finish_epoch(self) -> None:
        position, run = self._position, self._config.run
        position.epoch, position.call = position.epoch + 1, 0
        is_last = position.epoch == self._config.schedule.epochs
        self._parts.training_model.copyWeightsToHost()
        share_buffers(self._parts.network)
        self._average.update(self._parts.network.state_dict(), position.epoch)
        names = [LAST]
        if is_due(position.epoch, run.validate_every_epochs, is_last) or is_last:
            top1 = self._validate()
            if top1 > position.best_top1:
                position.best_top1, position.best_epoch = top1, position.epoch
                names.append(BEST)
        if is_due(position.epoch, run.checkpoint_every_epochs):
            names.append(f"epoch-{position.epoch:04d}.pt")
        self._save(*names)
        self._log.finish_epoch(self._summary())
        self._agree_on_stopping()

    def _agree_on_stopping(self) -> None:
        signals = gather(torch.tensor([float(self._interrupt.signal_number or 0)]))
        self._stop_signal = int(signals.max())

    def _validate(self) -> float:
        """Validate the current weights and the averaged ones; returns top-1 of those that the run prefers."""
        self._parts.training_model.detachFromDevice()  # on hardware, the validation model needs the IPUs
        kinds = {"current": self._parts.network.state_dict()}
        if self._average.weights is not None:
            kinds["averaged"] = self._average.weights
        top1 = 0.0
        for kind, weights in kinds.items():
            self._parts.validation_network.load_state_dict(weights)
            model = self._parts.validation_model
            if model.isAttachedToDevice():
                model.copyWeightsToDevice()
            result = evaluate(model, self._parts.validation_loader)
            top1 = result["top1"]
            self._log.add_validation({"update": self._position.update, "epoch": self._position.epoch, "weights": kind, **result})
        if self._parts.validation_model.isAttachedToDevice():
            self._parts.validation_model.detachFromDevice()
        self._parts.training_model.attachToDevice()
        return top1

    def _summary(self) -> Dict[str, Any]:
        position, last = self._position, self._log.last_validation()
        images = position.update * self._config.batch.images_per_update
        return {
            "preset": self._config.preset,
            "val_top1": last.get("top1"),
            "val_top5": last.get("top5"),
            "val_loss": last.get("loss"),
            "weights": last.get("weights"),
            "best_val_top1": position.best_top1 if position.best_epoch else None,
            "best_epoch": position.best_epoch or None,
            "images_per_second": images / position.seconds if position.seconds else None,
            "epochs": position.epoch,
            "updates": position.update,
            "checkpoint": str(self._folder / "checkpoints" / LAST),
        }
