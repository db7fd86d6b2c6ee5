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
from .curves import draw_curves
from .errors import TrainingError
from .evaluation import evaluate
from .interrupt import Interrupt
from .metrics import Window
from .records import TRAINING_COLUMNS, VALIDATION_COLUMNS, Table, write_summary
from .report import Progress, WandbLog
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
    """Trains, validates and keeps a run in its folder; `restore` continues from a checkpoint."""

    def __init__(self, config: Config, parts: Parts, folder: Path) -> None:
        self._config, self._parts, self._folder = config, parts, folder
        self._position = Position()
        self._average = WeightAverage(config.averaging, config.schedule.epochs)
        self._training_rows = Table(folder / "training.csv", TRAINING_COLUMNS)
        self._validation_rows = Table(folder / "validation.csv", VALIDATION_COLUMNS)
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
        self._training_rows.start(payload["training_rows"])
        self._validation_rows.start(payload["validation_rows"])

    def _payload(self) -> Dict[str, Any]:
        self._parts.training_model.copyWeightsToHost()
        return {
            "config": {"preset": self._config.preset, **plain_config(self._config)},
            "num_classes": self._num_classes(),
            "classes": list(self._parts.training_loader.classes),
            "model": {name: value.clone() for name, value in self._parts.network.state_dict().items()},
            "optimizer": self._parts.optimizer.state_dict(),
            "averaging": self._average.state_dict(),
            "device_random": self._parts.training_model.rng_state,
            "position": dataclasses.asdict(self._position),
            "training_rows": self._training_rows.rows,
            "validation_rows": self._validation_rows.rows,
        }

    def _num_classes(self) -> int:
        return len(self._parts.training_loader.classes)

    def _save(self, *names: str) -> None:
        payload = self._payload()
        for name in names:
            save_checkpoint(self._folder / "checkpoints" / name, payload)

    # ---- the run

    def run(self) -> Tuple[Dict[str, Any], int]:
        """Train to the end, or until a signal.

        Returns:
            The summary, and the exit code: 0, or 128 + signal after a checkpoint was written.

        Raises:
            TrainingError: a loss is not finite, or a file cannot be written.
        """
        position, epochs = self._position, self._config.schedule.epochs
        if not self._training_rows.rows:
            self._training_rows.start()
            self._validation_rows.start(self._validation_rows.rows)
        self._progress = Progress(epochs * self._updates_per_epoch, position.update, self._updates_per_epoch, epochs)
        self._wandb = WandbLog(self._config.run, self._folder, plain_config(self._config))
        with Interrupt() as interrupt:
            try:
                while position.epoch < epochs and interrupt.signal_number is None:
                    self._train_epoch(interrupt)
                    if interrupt.signal_number is None:
                        self._finish_epoch()
                if interrupt.signal_number is not None:
                    self._save(LAST)
                return self._summary(), interrupt.exit_code if interrupt.signal_number is not None else 0
            finally:
                self._progress.close()
                self._wandb.finish()

    def _train_epoch(self, interrupt: Interrupt) -> None:
        position = self._position
        self._parts.order.epoch, self._parts.order.first_call = position.epoch, position.call
        every = self._config.run.checkpoint_every_steps
        for images, labels, data_seconds in self._timed_batches():
            self._train_call(images, labels, data_seconds)
            done, before = position.update, position.update - self._config.batch.device_iterations
            is_checkpoint_due = bool(every) and done // every > before // every
            if interrupt.signal_number is None and is_checkpoint_due:
                self._save(LAST)
            if interrupt.signal_number is not None:
                return

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
        loss, hits = model(images, labels)
        seconds = time.perf_counter() - start + data_seconds
        loss_sum = float(loss.sum())
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is not finite after update {position.update}: lower base_learning_rate or loss_scaling; earlier checkpoints are "
                f"kept in {self._folder / 'checkpoints'}"
            )
        micro_batches = batch.images_per_call // batch.micro_batch_size
        position.window.add(loss_sum, micro_batches, float(hits.sum()), batch.images_per_call, seconds, data_seconds)
        position.seconds += seconds
        position.call += 1
        position.update += batch.device_iterations
        self._progress.advance(batch.device_iterations)
        self._log_if_due()

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
        self._training_rows.add(row)
        self._progress.show(row)
        self._wandb.log({f"training/{name}": value for name, value in row.items()}, position.update)
        position.window = Window()

    # ---- ends of epochs

    def _finish_epoch(self) -> None:
        position, run = self._position, self._config.run
        position.epoch, position.call = position.epoch + 1, 0
        is_last = position.epoch == self._config.schedule.epochs
        self._parts.training_model.copyWeightsToHost()
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
        draw_curves(self._folder / "curves.png", self._training_rows.rows, self._validation_rows.rows, self._folder.name)
        write_summary(self._folder / "summary.json", self._summary())

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
            self._record_validation(kind, result)
        if self._parts.validation_model.isAttachedToDevice():
            self._parts.validation_model.detachFromDevice()
        self._parts.training_model.attachToDevice()
        return top1

    def _record_validation(self, kind: str, result: Dict[str, float]) -> None:
        position = self._position
        row = {"update": position.update, "epoch": position.epoch, "weights": kind, **result}
        row = {column: row[column] for column in VALIDATION_COLUMNS}
        self._validation_rows.add(row)
        self._wandb.log({f"validation/{kind}/{name}": result[name] for name in ("top1", "top5", "loss")}, position.update)
        self._progress.say(
            f"epoch {position.epoch}/{self._config.schedule.epochs}  validation ({kind} weights)  top-1 {result['top1']:.2f} %  "
            f"top-5 {result['top5']:.2f} %  loss {result['loss']:.4f}  {int(result['images'])} images"
        )

    def _summary(self) -> Dict[str, Any]:
        position = self._position
        last = self._validation_rows.rows[-1] if self._validation_rows.rows else {}
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
