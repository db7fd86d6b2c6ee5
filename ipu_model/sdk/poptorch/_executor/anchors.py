"""Watched tensors of the last call."""

from __future__ import annotations

import functools
from typing import Dict, Iterable, Optional, Sequence

import torch

from ipu_model.runtime.device.layout import Layout, OutputCollector
from ipu_model.runtime.device.loop import Watch
from ipu_model.runtime.device.settings import Anchor
from ipu_model.runtime.device.state import DeviceState

from .compiled import Compiled


class Anchors:
    """Keeps what the options ask to watch."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self._anchors = {anchor.short_name: anchor for anchor in anchors}
        self._collected: Dict[str, OutputCollector] = {}

    def start(self, layout: Layout, compiled: Compiled, state: DeviceState) -> Optional[Watch]:
        """What watches a call from now on; None where nothing is asked for."""
        if not self._anchors:
            return None
        self._collected = {name: OutputCollector(layout, anchor.rule.mode, anchor.rule.period) for name, anchor in self._anchors.items()}
        find = {name: compiled.find(anchor.tensor_name) for name, anchor in self._anchors.items()}

        updated = {name for name, anchor in self._anchors.items() if compiled.is_of_update(anchor.tensor_name)}

        def collect(names: Iterable[str], iteration: int, step: int, replica: int, gradients: Sequence[torch.Tensor]) -> None:
            for name in names:
                self._collected[name].add(iteration, step, replica, [find[name](state, replica, gradients).clone()])

        def after_update(iteration: int) -> None:
            for replica in range(layout.replication_factor):
                collect(updated, iteration, layout.gradient_accumulation - 1, replica, ())

        return Watch(functools.partial(collect, self._anchors.keys() - updated), after_update)

    def tensor(self, short_name: str) -> torch.Tensor:
        """A watched tensor of the last call, batched like an output of its mode."""
        assert short_name in self._anchors, f"{short_name!r} is not anchored; anchored: {sorted(self._anchors)}"
        assert short_name in self._collected, "run the model before asking for an anchored tensor"
        return self._collected[short_name].join()[0].cpu()
