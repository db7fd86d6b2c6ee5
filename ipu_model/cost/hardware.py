"""IPUs and machines as data. Sources: Graphcore's datasheets (DS), PopLibs' sources (PL), measurements by others (M)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict


@dataclass(frozen=True)
class Ipu:
    """One chip.

    Attributes:
        sram_bytes_per_tile: 624 KiB (DS).
        clock_hz: of the tiles.
        amp_macs_per_cycle: of a tile's matrix unit, by type of operands and of partial sums (DS: peak FLOPS; PL: convolution units).
        slic_macs_per_cycle: of a tile in the short-kernel method that depthwise convolutions use, one channel per group (PL ConvModel).
        vector_macs_per_cycle: of a tile's vector unit in half (PL ConvModel).
        exchange_bytes_per_cycle: received by a tile (PL ExchangeEstimator).
        link_bytes_per_second: from one IPU to the next in a ladder (DS: links of 32 GB/s both ways together; PL: two of them, of which 85 %
            is to be had).
        host_bytes_per_second: share of the host link (M: 5.5 GB/s for 4 IPUs on a link of 100 Gb/s).
        streaming_bytes_per_second: share of the memory beside the chip (M: 20 GB/s for 4 IPUs).
    """

    name: str
    clock_hz: float
    tiles: int = 1472
    workers: int = 6
    sram_bytes_per_tile: int = 638_976
    amp_macs_per_cycle_half: int = 64
    amp_macs_per_cycle_float_partials: int = 32
    amp_macs_per_cycle_float: int = 16
    slic_macs_per_cycle: int = 8
    vector_macs_per_cycle: int = 4
    exchange_bytes_per_cycle: float = 4.0
    link_bytes_per_second: float = 2 * 16e9 * 0.85
    host_bytes_per_second: float = 5.5e9 / 4
    streaming_bytes_per_second: float = 20e9 / 4


GC200 = Ipu("GC200", clock_hz=1.33e9)
BOW = replace(GC200, name="Bow", clock_hz=1.85e9)
C600 = replace(GC200, name="C600", clock_hz=1.5e9, host_bytes_per_second=32e9)  # PCIe G4 x16


@dataclass(frozen=True)
class Machine:
    """A number of IPUs that one program can use."""

    name: str
    ipu: Ipu
    num_ipus: int


MACHINES: Dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine("m2000", GC200, 4),
        Machine("pod4", GC200, 4),
        Machine("pod16", GC200, 16),
        Machine("pod64", GC200, 64),
        Machine("bow-2000", BOW, 4),
        Machine("bow-pod4", BOW, 4),
        Machine("bow-pod16", BOW, 16),
        Machine("bow-pod64", BOW, 64),
        Machine("c600", C600, 1),
    )
}
