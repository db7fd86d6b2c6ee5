"""What `poptorch.Options` say, as typed values: made once for each executor, and read by all that runs or costs its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple

from .layout import FINAL, Layout


@dataclass(frozen=True)
class OutputRule:
    """Which results of a call come back: an output mode (`layout.FINAL`, ...), and for EVERY_N every how many iterations."""

    mode: int = FINAL
    period: int = 1


@dataclass(frozen=True)
class Anchor:
    """A watched tensor: the name that the program gave it, the tensor's own name, and which of its values are kept."""

    short_name: str
    tensor_name: str
    rule: OutputRule


@dataclass(frozen=True)
class Location:
    """Where a kind of tensor lives: on the chip or in the streaming memory, whole on each replica or sharded over them."""

    is_on_chip: bool = True
    is_sharded: bool = False


@dataclass(frozen=True)
class RunSettings:
    """How the device runs a model.

    Attributes:
        layout: how many micro batches a call has, and who gets which.
        outputs, anchors: what of them comes back.
        is_mean_reduction: gradients combine by their mean, otherwise by their sum.
        is_running_mean: the mean is kept while accumulating, otherwise divided at the end.
        is_automatic_loss_scaling: the device chooses the loss scale.
        seed: of the device's random numbers; None for torch's.
        is_stochastic_rounding: values stored in half are rounded up or down at random.
        is_synthetic: no data comes from the host.
        checks_floating_point: a result that is not finite raises.
        counts_cycles: a cycle counter is asked for, which only hardware has.
        broadcasts_buffers: all replicas have the same buffers.
        updatable_buffers: names of the buffers that may be uploaded alone.
        is_recomputed: a stage computes its forward pass again for the backward pass.
        partials: type of partial sums in matrix products, "half" or "float".
        locations: by kind of tensor, "activation", "weight", "optimizer" or "accumulator", where it was chosen.
        num_io_tiles: tiles set aside for host I/O; None where nothing was said.
        available_memory_proportions: share of an IPU's memory for the temporaries of one operation, by IPU, where it was chosen.
        is_pipelined: stages run at the same time.
        is_ipu_count_rounded: more IPUs than needed may be occupied, up to a power of two.
        process, num_processes: which of several processes this is.
        cache_folder: where captured programs are kept.
        report_folder: where the cost model's report is wanted.
        name: of the model in reports.
        shows_progress: a bar is shown while compiling, and the time is measured.
        expects_any_attribute: attributes of an optimizer that have no effect are not warned of.
        graph_options: names of options that are for the graph compiler.
    """

    layout: Layout = Layout(1, 1, 1)
    outputs: OutputRule = OutputRule()
    anchors: Tuple[Anchor, ...] = ()
    is_mean_reduction: bool = True
    is_running_mean: bool = False
    is_automatic_loss_scaling: bool = False
    seed: Optional[int] = None
    is_stochastic_rounding: bool = False
    is_synthetic: bool = False
    checks_floating_point: bool = False
    counts_cycles: bool = False
    broadcasts_buffers: bool = True
    updatable_buffers: Tuple[str, ...] = ()
    is_recomputed: bool = False
    partials: str = "float"
    locations: Mapping[str, Location] = field(default_factory=dict)
    num_io_tiles: Optional[int] = None
    available_memory_proportions: Mapping[int, float] = field(default_factory=dict)
    is_pipelined: bool = True
    is_ipu_count_rounded: bool = False
    process: int = 0
    num_processes: int = 1
    cache_folder: Optional[str] = None
    report_folder: Optional[str] = None
    name: Optional[str] = None
    shows_progress: bool = True
    expects_any_attribute: bool = False
    graph_options: Tuple[str, ...] = ()

    def location(self, kind: str) -> Location:
        """Where a kind of tensor lives."""
        return self.locations.get(kind, Location())
