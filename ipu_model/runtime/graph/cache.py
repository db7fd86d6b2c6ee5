"""Captured programs as files, found again by what forward did.

`forward` is captured in every process, since nothing else tells whether the program is still the same; with an equal forward the backward
pass and all that follows come from the file. A program whose backward pass is Python code (torch.autograd.Function, tensor hooks) is
captured whole every time: the same forward does not prove the same backward.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import Any, List, Optional, Sequence, Set

import torch
from torch import fx
from torch.fx.experimental import proxy_tensor
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import Error
from ..files import read_file, write_file
from ..operators import define_operator
from .files import describe_node

logger = logging.getLogger("poptorch::python")
_FORMAT = "IPU Model trace, version 2"
_SUFFIX = ".ipu_model"
SOURCES = Path(__file__).parent.parent  # the runtime, every room of it: what lowers a graph

define_operator("mark_results(Tensor[] results) -> ()", lambda results: None)


class Found(Exception):
    """Capturing stops here: the rest is in a file."""


class TraceCache:
    """A folder with one file for each distinct program; made when a compilation begins.

    Attributes:
        seconds_when_captured: of a program that was found, how long it took when it was captured whole; None where none was found.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seconds_when_captured: Optional[float] = None
        self._start = time.perf_counter()
        self._path: Optional[Path] = None  # of the program being captured

    def look_up(self, arguments: Sequence[Any], results: Sequence[torch.Tensor], loss: Optional[torch.Tensor], settings: Any) -> None:
        """Called when forward has been captured: raises `Found` where a file has the whole program."""
        if loss is not None and has_python_backward(loss):
            logger.info("The backward pass is Python code in part: the executable cache is not used.")
            return
        with torch.no_grad():
            torch.ops.ipu_model.mark_results([value.detach() for value in (*results, *([] if loss is None else [loss]))])
        tracer = _tracer()
        self._path = self.folder / f"{fingerprint(tracer.graph, tracer.root, arguments, settings)}{_SUFFIX}"
        if self._path.is_file():
            raise Found(str(self._path))

    def read(self) -> Any:
        """The program that `look_up` found; None, with a warning, where the file is damaged."""
        assert self._path is not None
        try:
            content = read_file(self._path, _FORMAT)
            self.seconds_when_captured = content["seconds"]
            return content["captured"]
        except Error as error:
            logger.warning("%s It is captured anew.", error.message)
            self._path.unlink()
            return None

    def store(self, captured: Any) -> None:
        """Keep a captured program under what `look_up` was asked for."""
        if self._path is not None:
            write_file(self._path, _FORMAT, {"captured": captured, "seconds": time.perf_counter() - self._start})


def has_python_backward(loss: torch.Tensor) -> bool:
    """Whether autograd's graph of a value has functions that are not torch's own."""
    seen: Set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def _tracer() -> Any:
    """The tracer under way: its `graph` is what it has recorded, its `root` has the constants."""
    current: Any = getattr(proxy_tensor, "get_proxy_mode", None) or proxy_tensor.get_innermost_proxy_mode  # type: ignore[attr-defined]
    return current().tracer


def fingerprint(graph: fx.Graph, root: Any, arguments: Sequence[Any], settings: Any) -> str:
    """Hash of operations, constants, shapes and settings, of the release of torch, and of the code that lowers the graph."""
    digest = hashlib.sha256(f"{_FORMAT} {torch.__version__} {settings!r}".encode())
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.read_bytes())
    for value in arguments:
        digest.update(repr((value.shape, value.dtype, str(value.device)) if isinstance(value, torch.Tensor) else value).encode())
    nodes: List[fx.Node] = list(graph.nodes)
    number = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        digest.update(repr(describe_node(node, number)).encode())
        if node.op == "get_attr":
            digest.update(_constant_bytes(getattr(root, str(node.target))))
    return digest.hexdigest()[:32]


def _constant_bytes(value: torch.Tensor) -> bytes:
    with _disable_current_modes():
        flat = value.detach().cpu().contiguous().view(-1)
        return repr((value.shape, value.dtype)).encode() + flat.view(torch.uint8).numpy().tobytes()


def without_marks(graph: fx.Graph) -> None:
    """Take the marks of `look_up` out of a captured graph."""
    for node in reversed(list(graph.nodes)):
        if node.target is torch.ops.ipu_model.mark_results.default:
            graph.erase_node(node)
