"""The training loop: epochs of calls, with validation, averages and checkpoints at their ends."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterator, Mapping, Tuple

import torch

from .averaging import WeightAverage
from .instances import share_buffers
from .metrics import Window
from .parts import TrainingProgram
from .position import Position
from .run import BEST, LAST, Run
from .schedule import is_due, is_passed
from .step import Step, StepResult
from .stopping import StopVote
from .validation import Validator


class Trainer:
    """Trains, validates and keeps a run; `restore` continues from a checkpoint. It is handed everything it works with.

    Every instance runs one; what they do next depends only on what all of them know, and the first one writes.
    """

    def __init__(
        self, program: TrainingProgram, step: Step, stop: StopVote, validator: Validator, average: WeightAverage, run: Run
    ) -> None:
        self._program, self._step, self._stop = program, step, stop
        self._validator, self._average, self._run = validator, average, run
        self._position = Position()

    def train(self) -> Tuple[Dict[str, Any], int]:
        """Train to the end, or until a signal.

        Returns:
            The summary, and the exit code: 0, or 128 + signal after a checkpoint was written.

        Raises:
            TrainingError: a loss is not finite, or a file cannot be written.
        """
        with self._stop, self._run.under_way(self._position.update, self._step.updates_per_epoch):
            while self._position.epoch < self._run.epochs and not self._stop.is_stopping():
                self._train_epoch()
                if not self._stop.is_stopping():
                    self._finish_epoch()
            if self._stop.exit_code:
                self._save(LAST)
            return self._summary(), self._stop.exit_code

    # ---- an epoch

    def _train_epoch(self) -> None:
        position, updates = self._position, self._step.updates
        self._program.order.epoch, self._program.order.first_call = position.epoch, position.call
        for images, labels, data_seconds in self._timed_batches():
            result = self._step(images, labels, position.update, self._stop.ballot)
            self._stop.count(result.ballots)
            self._take(result, data_seconds)
            if self._stop.is_stopping():
                return
            if is_passed(position.update, updates, self._run.cadence.checkpoint_every_steps):
                self._save(LAST)

    def _timed_batches(self) -> Iterator[Tuple[torch.Tensor, torch.Tensor, float]]:
        """The rest of the epoch's batches, and the seconds that each was waited for."""
        if self._position.call >= self._program.order.calls_per_epoch:  # stopped between the last call of an epoch and its end
            self._program.order.first_call = 0
            images, labels, _ = next(iter(self._program.batches))
            self._step.compile(images, labels)
            return
        batches = iter(self._program.batches)
        while True:
            start = time.perf_counter()
            item = next(batches, None)
            if item is None:
                return
            yield item[0], item[1], time.perf_counter() - start

    def _take(self, result: StepResult, data_seconds: float) -> None:
        """Count a call, and log the window of calls where that is due."""
        position, updates = self._position, self._step.updates
        seconds = result.seconds + data_seconds
        position.window.add(result.loss_sum, result.micro_batches, result.hits, result.images, seconds, data_seconds)
        position.seconds += seconds
        position.call += 1
        position.update += updates
        self._run.advance(updates)
        is_last = position.call == self._program.order.calls_per_epoch
        if is_last or is_passed(position.update, updates, self._run.cadence.log_every_steps):
            self._run.add_training({**self._where(), **position.window.means(), **self._step.hyperparameters()})
            position.window = Window()

    def _where(self) -> Dict[str, Any]:
        return {"update": self._position.update, "epoch": round(self._step.epoch_of(self._position.update), 4)}

    # ---- the end of an epoch

    def _finish_epoch(self) -> None:
        position, cadence = self._position, self._run.cadence
        is_last = position.epoch + 1 == self._run.epochs
        validates = is_last or is_due(position.epoch + 1, cadence.validate_every_epochs)
        if validates:
            self._save(LAST)  # what was learnt outlives a validation that fails, by an unreadable picture for one
        position.epoch, position.call = position.epoch + 1, 0
        self._program.executor.copyWeightsToHost()
        share_buffers(self._program.network)
        self._average.update(self._program.network.state_dict(), position.epoch)
        names = [LAST]
        if validates:
            top1 = self._validate()
            if top1 > position.best_top1:
                position.best_top1, position.best_epoch = top1, position.epoch
                names.append(BEST)
        if is_due(position.epoch, cadence.checkpoint_every_epochs):
            names.append(f"epoch-{position.epoch:04d}.pt")
        self._save(*names)
        self._run.finish_epoch(self._summary())
        self._stop.call()

    def _validate(self) -> float:
        """Validate the current weights and the averaged ones; returns top-1 of those that the run prefers."""
        kinds = {"current": self._program.network.state_dict()}
        if self._average.weights is not None:
            kinds["averaged"] = self._average.weights
        self._program.executor.detachFromDevice()  # on hardware, the validation model needs the IPUs
        scores = self._validator(kinds)
        self._program.executor.attachToDevice()
        for kind, result in scores.items():
            self._run.add_validation({"update": self._position.update, "epoch": self._position.epoch, "weights": kind, **result})
        return list(scores.values())[-1]["top1"]

    # ---- what is kept

    def restore(self, payload: Mapping[str, Any]) -> None:
        """Take everything from a checkpoint's payload."""
        self._program.network.load_state_dict(payload["model"])
        self._program.optimizer.load_state_dict(payload["optimizer"])
        self._average.load_state_dict(payload["averaging"])
        self._step.go_on_from(payload["device_random"])
        self._position = Position.from_state(payload["position"])
        self._run.restore(payload)

    def _save(self, *names: str) -> None:
        self._run.save(self._payload, *names)

    def _payload(self) -> Dict[str, Any]:
        self._program.executor.copyWeightsToHost()
        classes = list(self._program.batches.classes)
        return {
            "num_classes": len(classes),
            "classes": classes,
            "model": {name: value.clone() for name, value in self._program.network.state_dict().items()},
            "optimizer": self._program.optimizer.state_dict(),
            "averaging": self._average.state_dict(),
            "device_random": self._step.random,
            "position": self._position.state_dict(),
        }

    def _summary(self) -> Dict[str, Any]:
        position, last = self._position, self._run.last_validation()
        images = position.update * self._step.images_per_update
        return {
            "preset": self._run.preset,
            "val_top1": last.get("top1"),
            "val_top5": last.get("top5"),
            "val_loss": last.get("loss"),
            "weights": last.get("weights"),
            "best_val_top1": position.best_top1 if position.best_epoch else None,
            "best_epoch": position.best_epoch or None,
            "images_per_second": images / position.seconds if position.seconds else None,
            "epochs": position.epoch,
            "updates": position.update,
            "checkpoint": str(self._run.checkpoint),
        }
