"""What a config's network is and costs, in the columns of the papers."""

from __future__ import annotations

import statistics
import time
from typing import Any, Dict, List, Optional

import torch
from torch import nn

from config import Config
from datasets.factory import training_facts
from models.counting import count
from models.factory import build_model

from .estimates import estimate_config

LATENCY_RUNS = 20  # batch 1, one core, mean: as in EfficientNet's paper (arXiv 1905.11946, table 4)
Row = Dict[str, Any]


def summarise(config: Config, has_latency: bool) -> Row:
    """Parameters, multiply-accumulates and convolution outputs of one image, CPU latency, and estimated throughput on IPUs."""
    model = build_model(config.model, training_facts(config.data).num_classes)
    counts = count(model, config.data.image_size)
    return {
        "preset": config.preset,
        "image_size": config.data.image_size,
        "num_parameters": counts.num_parameters,
        "macs": counts.macs,
        "activation_elements": counts.activation_elements,
        "cpu_latency_seconds": measure_latency(model, config.data.image_size) if has_latency else None,
        "training_images_per_second": _estimated_speed(config, is_inference=False),
        "inference_images_per_second": _estimated_speed(config, is_inference=True),
        "machine": config.ipu.machine,
    }


def measure_latency(model: nn.Module, image_size: int) -> float:
    """Mean seconds of 20 runs over one image on one core, plain PyTorch in float32, after two that do not count."""
    image = torch.zeros(1, 3, image_size, image_size)
    seconds: List[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            model.eval()
            for _ in range(2 + LATENCY_RUNS):
                start = time.perf_counter()
                model(image)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.mean(seconds[2:])


def _estimated_speed(config: Config, is_inference: bool) -> Optional[float]:
    """Images/s by the cost model; None where the program does not fit into the memory of the IPUs."""
    estimate = estimate_config(config, is_inference=is_inference).estimate
    return estimate.images_per_second if estimate.fits else None
