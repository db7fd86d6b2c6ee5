"""From the optimizer section to a PopTorch optimizer with its weight-decay groups."""

from __future__ import annotations

from typing import Any, Dict, List, Set

import torch
from torch import nn

import poptorch
from config import Config

from .parts import Optimizer


def build_optimizer(config: Config, model: nn.Module, undecayed: Set[str]) -> Optimizer:
    """The optimizer of a run.

    Args:
        undecayed: names of the parameters that weight decay leaves out, the scales and shifts of norms.
    """
    settings = config.optimizer
    groups = parameter_groups(model, undecayed, settings.weight_decay)
    shared: Dict[str, Any] = dict(
        lr=config.learning_rate, loss_scaling=settings.loss_scaling, accum_type=getattr(torch, settings.accumulator_type)
    )
    if settings.optimizer == "adamw":
        return poptorch.optim.AdamW(groups, betas=settings.adamw_betas, **shared)
    if settings.optimizer == "sgd":
        return poptorch.optim.SGD(groups, momentum=settings.momentum, use_combined_accum=settings.combined_accumulator, **shared)
    return poptorch.optim.RMSprop(
        groups, alpha=config.rmsprop_decay, eps=settings.rmsprop_epsilon, momentum=settings.momentum, use_tf_variant=True, **shared
    )


def parameter_groups(model: nn.Module, undecayed: Set[str], weight_decay: float) -> List[Dict[str, Any]]:
    """Two parameter groups: with weight decay, and without."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if name not in undecayed]
    others = [parameter for name, parameter in named if name in undecayed]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
