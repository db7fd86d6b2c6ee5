"""Functions called inside `forward`."""

from __future__ import annotations

from ._forward.algorithms import (
    ctc_beam_search_decoder as ctc_beam_search_decoder,
    dynamic_slice as dynamic_slice,
    dynamic_update as dynamic_update,
    fps as fps,
    nearest as nearest,
)
from ._forward.annotations import (
    Attribute as Attribute,
    MultiConv as MultiConv,
    NameScope as NameScope,
    ipu_print_tensor as ipu_print_tensor,
    nop as nop,
    recomputationCheckpoint as recomputationCheckpoint,
    serializedMatMul as serializedMatMul,
    set_available_memory as set_available_memory,
    set_overlap_for_input as set_overlap_for_input,
    set_overlap_for_output as set_overlap_for_output,
)
from ._forward.control_flow import CPU as CPU, cond as cond, custom_op as custom_op, for_loop as for_loop
from ._forward.losses import identity_loss as identity_loss, isRunningOnIpu as isRunningOnIpu
from ._placement.blocks import (
    BeginBlock as BeginBlock,
    Block as Block,
    BlockFunction as BlockFunction,
    removeBlocks as removeBlocks,
)
