"""EfficientNet B0-B7 and the CIFAR size, from timm's builder and blocks."""

from __future__ import annotations

from functools import partial
from typing import Any, List

from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from torch import nn

from config import ModelConfig

from .architectures import (
    HEAD_CHANNELS,
    SIZES,
    SQUEEZE_RATIO,
    STAGES,
    STEM_CHANNELS,
    Size,
    Stage,
    num_groups,
    scale_channels,
    scale_repeats,
)
from .initialisation import initialise_efficientnet
from .norm import build_norm_act
from .squeeze_excite import ScaledSqueezeExcite, fold_proxy_scales


def build_efficientnet(config: ModelConfig, num_classes: int) -> nn.Module:
    """An initialised EfficientNet: images [N, 3, H, W] to logits [N, num_classes].

    `group_size` 1 gives depthwise convolutions, 16 groups of 16 channels. ValueError where the group size does not divide.
    """
    size = SIZES[config.architecture]
    is_folded = config.proxy_norm and config.proxy_norm_scale == "folded"
    model = EfficientNet(
        block_args=decode_arch_def(stage_definitions(config, size)),
        num_classes=num_classes,
        stem_size=STEM_CHANNELS,
        num_features=scale_channels(HEAD_CHANNELS, size.width),
        round_chs_fn=partial(round_channels, multiplier=size.width),
        pad_type="same",
        norm_layer=_plain_function(build_norm_act(config, nn.SiLU)),
        act_layer=nn.SiLU,
        se_layer=ScaledSqueezeExcite if is_folded else SqueezeExcite,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
    )
    stem: Any = model.conv_stem
    stem.stride = (size.stem_stride, size.stem_stride)  # timm's stem always halves; this one pads by its stride
    if is_folded:
        fold_proxy_scales(model)
    initialise_efficientnet(model)
    return model


def _plain_function(factory: Any) -> Any:
    """timm takes a plain function for a factory of norm and activation together."""

    def norm_act(channels: int, apply_act: bool = True, **settings: Any) -> nn.Module:
        return factory(channels, apply_act=apply_act, **settings)

    return norm_act


def stage_definitions(config: ModelConfig, size: Size) -> List[List[str]]:
    """The table of stages in timm's notation, scaled: one list for each stage, one entry for each run of equal blocks."""
    definitions = []
    in_channels = scale_channels(STEM_CHANNELS, size.width)
    for index, stage in enumerate(STAGES):
        out_channels = scale_channels(stage.channels, size.width)
        repeats = scale_repeats(stage.repeats, size.depth)
        stride = size.second_stage_stride if index == 1 else stage.stride
        runs = [(1, stride, in_channels), (repeats - 1, 1, out_channels)]
        definitions.append([_block_run(config, stage, index == 0, *run) for run in runs if run[0]])
        in_channels = out_channels
    return definitions


def _block_run(config: ModelConfig, stage: Stage, is_first_stage: bool, repeats: int, stride: int, in_channels: int) -> str:
    kind, expand = ("ds", 1) if is_first_stage else ("ir", config.expand_ratio)
    channels = in_channels * expand
    group_size = channels // num_groups(channels, config.group_size, is_first_stage)
    return f"{kind}_r{repeats}_k{stage.kernel_size}_s{stride}_e{expand}_c{stage.channels}_se{SQUEEZE_RATIO}_gs{group_size}"
