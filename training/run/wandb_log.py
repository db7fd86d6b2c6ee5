"""Weights & Biases, where a run asks for it."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from config import RunConfig

logger = logging.getLogger(__name__)


class WandbLog:
    """Weights & Biases; a failure is said once and never stops a run. Its id is kept in the run's folder for resuming."""

    def __init__(self, run: RunConfig, folder: Path) -> None:
        self._settings, self._folder = run, folder
        self._run: Optional[Any] = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin or go on there, where the config asks for it."""
        if self._settings.wandb:
            self._try("start", lambda: self._begin(config))

    def _begin(self, config: Mapping[str, Any]) -> None:
        import wandb

        id_file = self._folder / "wandb-id"
        run_id = id_file.read_text().strip() if id_file.is_file() else uuid.uuid4().hex[:8]
        id_file.write_text(run_id)
        settings: Dict[str, Any] = dict(project=self._settings.wandb_project, name=self._folder.name, id=run_id, dir=str(self._folder))
        self._run = wandb.init(config=dict(config), resume="allow", **settings)

    def log(self, values: Mapping[str, Any], update: int) -> None:
        """Log values at an update."""
        if self._run is not None:
            present = self._run
            self._try("log", lambda: present.log(dict(values), step=update))

    def finish(self) -> None:
        """End the run there."""
        if self._run is not None:
            self._try("finish", self._run.finish)

    def _try(self, what: str, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever a logger does wrong must not stop training
            logger.warning("Weights & Biases could not %s (%s: %s); the run goes on without it", what, type(error).__name__, error)
            self._run = None
