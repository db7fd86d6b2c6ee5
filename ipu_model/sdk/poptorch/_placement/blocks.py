"""Blocks, stages and execution strategies: which part of a model runs on which IPU."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import torch

from ipu_model.program.placement import PlacedBlock, Placement
from ipu_model.runtime.errors import Error
from ipu_model.runtime.forward.recording import BEFORE_BLOCKS, BlockIds, BlockStart, current_recording

from ..enums import AutoStage

Id = Union[str, int]


class _BeginBlockHook:
    """Forward pre-hook that begins a block: an object, so that annotated modules can be copied and pickled."""

    def __init__(self, user_id: Optional[Id], ipu_id: Optional[int]) -> None:
        self.user_id = user_id
        self.ipu_id = ipu_id

    def __call__(self, module: torch.nn.Module, inputs: Tuple[Any, ...]) -> None:
        capture = current_recording()
        if capture is None:
            return
        if self.user_id is None and capture.keeps_block_ids:
            self.user_id = capture.block_ids.take()
        capture.begin_block(self.user_id, self.ipu_id)

    def __repr__(self) -> str:
        return f"BeginBlock(user_id={self.user_id}, ipu_id={self.ipu_id})"


def begin_block(user_id: Optional[Id], ipu_id: Optional[int]) -> None:
    """Begin a block in the capture under way; nothing on the CPU."""
    capture = current_recording()
    if capture is not None:
        capture.begin_block(user_id, ipu_id)


class _CallableBlock(torch.nn.Module):
    """A plain callable whose call begins a block."""

    def __init__(self, function: Callable[..., Any], hook: _BeginBlockHook) -> None:
        super().__init__()
        self._function = function
        self._user_id, self._ipu_id = hook.user_id, hook.ipu_id
        self.register_forward_pre_hook(hook)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the callable gives."""
        return self._function(*args, **kwargs)


def _block_hooks(module: torch.nn.Module) -> Dict[int, _BeginBlockHook]:
    """The annotations of a module, by the keys of torch's table of hooks, with which they are copied and pickled."""
    return {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, _BeginBlockHook)}


def BeginBlock(layer_to_call: Any, user_id: Optional[Id] = None, ipu_id: Optional[int] = None) -> Any:
    """Begin a block whenever the module is called; the block lasts until the next begins. Returns the same module."""
    hook = _BeginBlockHook(user_id, ipu_id)
    if isinstance(layer_to_call, torch.nn.Module):
        if _block_hooks(layer_to_call):
            raise Error("module has already been assigned to a block: annotate it once, or call removeBlocks() first.")
        layer_to_call.register_forward_pre_hook(hook)
        return layer_to_call
    if callable(layer_to_call):
        return _CallableBlock(layer_to_call, hook)
    raise Error(f"BeginBlock takes a module or a callable, got {layer_to_call!r}.")


def removeBlocks(module: torch.nn.Module) -> None:
    """Drop the annotations of BeginBlock from a module and all below it."""
    assert isinstance(module, torch.nn.Module), f"removeBlocks takes a module, got {module!r}"
    for part in module.modules():
        for key in _block_hooks(part):
            del part._forward_pre_hooks[key]


class Block(torch.nn.Module):
    """Context manager: what runs inside belongs to one block."""

    def __init__(self, user_id: Optional[Id] = None, ipu_id: Optional[int] = None) -> None:
        super().__init__()
        self._user_id = user_id
        self._ipu_id = ipu_id

    def __enter__(self) -> Block:
        Block.start(self._user_id, self._ipu_id)
        return self

    def __exit__(self, *exception: Any) -> None:
        capture = current_recording()
        if capture is not None:
            capture.end_block()

    @staticmethod
    def start(user_id: Optional[Id] = None, ipu_id: Optional[int] = None) -> None:
        """Begin a block that lasts until the next."""
        begin_block(user_id, ipu_id)

    @staticmethod
    def useAutoId() -> None:
        """Number the following blocks without an id from 0. Called in forward."""
        capture = current_recording()
        if capture is not None:
            capture.block_ids.reset()


def BlockFunction(user_id: Optional[Id] = None, ipu_id: Optional[int] = None) -> Callable[..., Any]:
    """Decorator: the function's body runs inside a Block."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with Block(user_id, ipu_id):
                return function(*args, **kwargs)

        return run

    return decorate


class Stage:
    """Blocks that run together as one pipeline stage."""

    def __init__(self, *block_ids: str) -> None:
        assert all(isinstance(block_id, str) for block_id in block_ids), f"Stage takes block names, got {block_ids!r}"
        self._blocks = list(block_ids)
        self._ipu: Optional[int] = None

    @property
    def blocks(self) -> List[str]:
        """Names of the blocks."""
        return self._blocks

    @property
    def chosen_ipu(self) -> Optional[int]:
        """The IPU that `ipu` was told, None where it was not."""
        return self._ipu

    def ipu(self, ipu: int) -> Stage:
        """Run on this IPU."""
        assert isinstance(ipu, int), f"Stage.ipu takes an int, got {ipu!r}"
        self._ipu = ipu
        return self


class ExecutionStrategy:
    """What `Options.setExecutionStrategy` takes."""

    has_pipeline = False

    def __init__(self) -> None:
        self.block_ids = BlockIds()

    def place(self, block_starts: List[BlockStart]) -> Placement:
        """Stage and IPU of each block that forward began; what ran before the first is in stage 0 on IPU 0."""
        begun = [start for start in block_starts if start != BEFORE_BLOCKS]
        before = [PlacedBlock(BEFORE_BLOCKS.block_id, 0, 0)] if len(begun) < len(block_starts) else []
        return Placement((*before, *self.place_blocks(begun)))

    def place_blocks(self, block_starts: List[BlockStart]) -> List[PlacedBlock]:
        """Stage and IPU of each block."""
        raise NotImplementedError

    def backendOptions(self) -> Dict[str, int]:
        """What `Options.toDict` says of the strategy."""
        raise NotImplementedError


class PipelinedExecution(ExecutionStrategy):
    """Stages run at the same time on successive micro batches.

    Takes one AutoStage, or stages in order: Stage objects, block names, or lists of block names.
    """

    has_pipeline = True

    def backendOptions(self) -> Dict[str, int]:
        """What `Options.toDict` says of the strategy."""
        return {"execution_mode": 0}

    def __init__(self, *args: Union[AutoStage, Stage, str, List[str]]) -> None:
        super().__init__()
        is_automatic = not args or isinstance(args[0], AutoStage)
        assert not is_automatic or len(args) <= 1, f"expected one AutoStage or a list of stages, got {args!r}"
        self._auto_stage = AutoStage(args[0]) if args and is_automatic else AutoStage.SameAsIpu
        self._stages = [] if is_automatic else [_as_stage(arg) for arg in args]
        self._stage_of_block: Dict[str, int] = {}
        for number, stage in enumerate(self._stages):
            for block_id in stage.blocks:
                assert block_id not in self._stage_of_block, f"block {block_id!r} is in two stages"
                self._stage_of_block[block_id] = number

    def stage(self, block_id: str) -> Stage:
        """The stage of a block."""
        assert block_id in self._stage_of_block, f"unknown block {block_id!r}; known: {sorted(self._stage_of_block)}"
        return self._stages[self._stage_of_block[block_id]]

    def place_blocks(self, block_starts: List[BlockStart]) -> List[PlacedBlock]:
        """Stage and IPU of each block."""
        automatic: Dict[str, int] = {}
        return [self._place_block(start.block_id, start.ipu_id, automatic) for start in block_starts]

    def _place_block(self, block_id: str, ipu_id: Optional[int], automatic: Dict[str, int]) -> PlacedBlock:
        if self._stages:
            stage = self.stage(block_id)
            number = self._stage_of_block[block_id]
            ipu = stage.chosen_ipu if stage.chosen_ipu is not None else ipu_id
            return PlacedBlock(block_id, number, number if ipu is None else ipu)
        if self._auto_stage == AutoStage.SameAsIpu:
            assert ipu_id is not None, f"AutoStage.SameAsIpu: block {block_id!r} needs an ipu_id"
            return PlacedBlock(block_id, ipu_id, ipu_id)
        number = automatic.setdefault(block_id, len(automatic) + 1)
        return PlacedBlock(block_id, number, number if ipu_id is None else ipu_id)


class ShardedExecution(PipelinedExecution):
    """Stages run one after another on the same micro batch."""

    has_pipeline = False

    def backendOptions(self) -> Dict[str, int]:
        """What `Options.toDict` says of the strategy."""
        return {"execution_mode": 1}


def _as_stage(description: Union[Stage, str, List[str], Any]) -> Stage:
    if isinstance(description, Stage):
        return description
    if isinstance(description, str):
        return Stage(description)
    assert isinstance(description, (list, tuple)), f"expected a Stage, a block name or a list of names, got {description!r}"
    return Stage(*description)
