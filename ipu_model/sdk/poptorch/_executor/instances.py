"""What several processes that train together share."""

from __future__ import annotations

from typing import Optional

import torch

from ipu_model.runtime.device.settings import RunSettings
from ipu_model.runtime.gradients.exchange import GradientExchange
from ipu_model.runtime.instances import join

from .compiled import Compiled


def gradient_exchange(compiled: Compiled, settings: RunSettings, device: torch.device) -> Optional[GradientExchange]:
    """The exchange of a model's gradients with the other instances; None where there are none."""
    if not compiled.is_training or settings.num_processes == 1:
        return None
    shapes = [torch.Size(compiled.shapes[name][0]) for name in compiled.trainable]
    instances = join(settings.process, settings.num_processes)
    return GradientExchange(compiled.captured.graph, compiled.captured.num_outputs, shapes, device, instances)
