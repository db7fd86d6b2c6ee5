"""What the functions called inside `forward` leave behind while a model is being captured."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import torch

from ..errors import Error


@dataclass(frozen=True)
class BlockStart:
    """A block begun in forward, as annotated."""

    block_id: str
    ipu_id: Optional[int]


BEFORE_BLOCKS = BlockStart("", 0)  # what runs before the first block begins: on IPU 0, in stage 0


class BlockIds:
    """The ids of blocks that have none of their own: "0", "1", ..."""

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> str:
        """The next id."""
        self._next += 1
        return str(self._next - 1)

    def reset(self) -> None:
        """Count from 0 again."""
        self._next = 0


@dataclass
class Losses:
    """Tensors marked as losses, and which values are computed from them, through detached paths too."""

    marked: List[torch.Tensor] = field(default_factory=list)
    _sources: Dict[int, Set[int]] = field(default_factory=dict)  # id of a tensor -> numbers of the losses that it depends on
    _kept: List[torch.Tensor] = field(default_factory=list)  # keeps ids unique

    def mark(self, loss: torch.Tensor) -> None:
        """Make a tensor a candidate for the final loss."""
        self._add(loss, {len(self.marked)})
        self.marked.append(loss)

    def follow(self, arguments: Iterable[Any], results: Iterable[Any]) -> None:
        """Note that an operation computed these results from these arguments."""
        if not self.marked:
            return
        sources: Set[int] = set()
        for argument in arguments:
            sources |= self._sources.get(id(argument), set())
        if sources:
            for result in results:
                self._add(result, sources)

    def _add(self, tensor: Any, sources: Set[int]) -> None:
        self._sources[id(tensor)] = self._sources.get(id(tensor), set()) | sources
        self._kept.append(tensor)

    def final(self) -> torch.Tensor:
        """The one marked loss that no other marked loss is computed from; `Error` for none or several."""
        later = [self._sources[id(loss)] - {index} for index, loss in enumerate(self.marked)]
        remaining = [loss for index, loss in enumerate(self.marked) if not any(index in sources for sources in later)]
        if not remaining:
            raise Error(
                "Couldn't find a loss in graph: use a torch loss function, or mark the value with poptorch.identity_loss(x, "
                "reduction='mean')."
            )
        if len(remaining) > 1:
            raise Error(
                f"Multiple independent losses found in graph: {len(remaining)}, expected one final loss. Combine them and mark the result "
                "with poptorch.identity_loss(x, reduction='mean')."
            )
        loss = remaining[0]
        if loss.numel() != 1:
            raise Error(
                f"The final loss has shape {tuple(loss.shape)}, expected a single value: reduce it with "
                "poptorch.identity_loss(x, reduction='mean')."
            )
        return loss


@dataclass(frozen=True)
class HostFunction:
    """Python code that the graph calls on the host: the types that it takes, and results of the shapes that it gives."""

    call: Callable[..., Any]
    dtypes: Tuple[torch.dtype, ...]
    examples: Tuple[torch.Tensor, ...]


@dataclass
class Overlap:
    """Tensors annotated for overlapped host I/O: (tensor as given, tensor as returned, mode)."""

    inputs: List[Tuple[torch.Tensor, torch.Tensor, str]] = field(default_factory=list)
    outputs: List[Tuple[torch.Tensor, torch.Tensor, str]] = field(default_factory=list)


@dataclass
class Recording:
    """Blocks in execution order, losses and annotations, of one run of `forward`."""

    is_training: bool
    block_ids: BlockIds = field(default_factory=BlockIds)
    keeps_block_ids: bool = False  # whether what an annotation without id gets here is its id from now on
    losses: Losses = field(default_factory=Losses)
    overlap: Overlap = field(default_factory=Overlap)
    name_scopes: List[str] = field(default_factory=list)
    multi_conv_size: Optional[int] = None  # convolutions so far inside of a MultiConv, None outside
    used_inputs: Set[int] = field(default_factory=set)  # ids of the input tensors that operations take
    has_tensor_hooks: bool = False
    host_functions: List[HostFunction] = field(default_factory=list)
    num_regions: int = 0  # bodies of loops and branches so far
    has_collectives: bool = False  # operations between replicas
    _starts: List[BlockStart] = field(default_factory=list)
    _is_behind_block: bool = False  # a scope has been left, and no block has begun since
    _has_operations_behind_block: bool = False

    @property
    def block_starts(self) -> List[BlockStart]:
        """Blocks in the order in which they began, led by `BEFORE_BLOCKS` where something ran before; empty without annotations."""
        return [] if self._starts == [BEFORE_BLOCKS] else self._starts

    def begin_block(self, block_id: Any, ipu_id: Optional[int]) -> None:
        """What follows belongs to this block, until the next begins or `end_block`."""
        self._starts.append(BlockStart(self.block_ids.take() if block_id is None else str(block_id), ipu_id))
        self._is_behind_block = False

    def end_block(self) -> None:
        """What follows belongs to no block: an outer one is over too."""
        self._is_behind_block = True

    def note_operation(self) -> None:
        """Something runs on the device."""
        if not self._starts:
            self._starts.append(BEFORE_BLOCKS)
        self._has_operations_behind_block |= self._is_behind_block

    def check_blocks(self) -> None:
        """`Error` for operations behind a scope, where no block is."""
        if self._has_operations_behind_block:
            raise Error(
                "No active Block: some operations of forward run behind the end of a poptorch.Block, before the next block begins. Move "
                "them into a block, or begin the blocks with poptorch.BeginBlock or poptorch.Block.start, which do not end by themselves."
            )


_current: List[Optional[Recording]] = []


def current_recording() -> Optional[Recording]:
    """The recording under way, None outside of a capture."""
    return _current[-1] if _current else None


@contextlib.contextmanager
def recording(is_training: bool, block_ids: Optional[BlockIds] = None) -> Iterator[Recording]:
    """Record what `forward` marks until the end of the `with` block.

    `block_ids` are those of the execution strategy that forward is compiled for; without them nothing remains in the annotations.
    """
    record = Recording(is_training) if block_ids is None else Recording(is_training, block_ids, keeps_block_ids=True)
    _current.append(record)
    try:
        yield record
    finally:
        _current.pop()


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Code that runs on the host in the middle of a captured `forward`: nothing is recorded."""
    _current.append(None)
    try:
        yield
    finally:
        _current.pop()
