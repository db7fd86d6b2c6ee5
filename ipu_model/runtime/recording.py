"""What the functions called inside `forward` leave behind while a model is being captured."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Iterator, List, Optional, Set

import torch

from .errors import Error


@dataclass
class BlockStart:
    """A block begun in forward, as annotated."""

    block_id: Optional[str]
    ipu_id: Optional[int]


@dataclass
class Recording:
    """Block starts in execution order and the tensors marked as losses, of one run of `forward`."""

    is_training: bool
    block_starts: List[BlockStart] = field(default_factory=list)
    losses: List[torch.Tensor] = field(default_factory=list)
    num_recomputation_checkpoints: int = 0
    is_inside_block: bool = False
    has_operations_outside_blocks: bool = False

    def begin_block(self, block_id: Optional[str], ipu_id: Optional[int]) -> None:
        """What follows belongs to this block, until the next begins or `end_block`."""
        self.block_starts.append(BlockStart(block_id, ipu_id))
        self.is_inside_block = True

    def end_block(self) -> None:
        """What follows belongs to no block."""
        self.is_inside_block = False

    def check_blocks(self) -> None:
        """`Error` when only a part of the model is annotated."""
        if self.block_starts and self.has_operations_outside_blocks:
            raise Error(
                "No active Block: some operations of forward belong to no block while others do. Begin the first block before "
                "the first operation, for instance with poptorch.BeginBlock on the whole model."
            )

    def final_loss(self) -> torch.Tensor:
        """The one marked loss that no other marked loss is computed from; `Error` for none or several."""
        remaining = [
            loss for index, loss in enumerate(self.losses) if not any(_is_computed_from(other, loss) for other in self.losses[index + 1 :])
        ]
        if not remaining:
            raise Error(
                "Couldn't find a loss in forward: use a torch loss function, or mark the value with poptorch.identity_loss(x, "
                "reduction='mean')."
            )
        if len(remaining) > 1:
            raise Error(
                f"Multiple independent losses found in forward: {len(remaining)}. Combine them and mark the result with "
                "poptorch.identity_loss(x, reduction='mean')."
            )
        loss = remaining[0]
        if loss.numel() != 1:
            raise Error(
                f"The final loss has shape {tuple(loss.shape)}, expected a single value: reduce it with "
                "poptorch.identity_loss(x, reduction='mean')."
            )
        return loss


def _is_computed_from(result: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether autograd's graph of `result` contains `source`."""
    if result is source or source.grad_fn is None:
        return result is source
    seen: Set[object] = set()
    waiting = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node is source.grad_fn:
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


_current: List[Recording] = []


def current_recording() -> Optional[Recording]:
    """The recording under way, None outside of a capture."""
    return _current[-1] if _current else None


@contextlib.contextmanager
def recording(is_training: bool) -> Iterator[Recording]:
    """Record what `forward` marks until the end of the block."""
    _current.append(Recording(is_training))
    try:
        yield _current[-1]
    finally:
        _current.pop()
