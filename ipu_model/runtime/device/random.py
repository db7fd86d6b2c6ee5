"""The device's random numbers: a counter, so that a stream can be saved, restored, and continued under another layout."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Iterator, List, Optional, Sequence

import torch


class DeviceRandom:
    """Random state `[seed, counter]`; the counter is the number of device iterations run.

    Every micro batch draws from a stream of its own, given by (seed, counter, replica, accumulation step): replicas and steps differ,
    and the numbers do not depend on how replicas are spread over processes.
    """

    def __init__(self, seed: int, device: Optional[torch.device] = None) -> None:
        self.device = device or torch.device("cpu")
        self._generator = device_generator(self.device)
        self._seed = seed
        self._counter = 0

    @property
    def state(self) -> List[int]:
        """`[seed, counter]`."""
        return [self._seed, self._counter]

    @state.setter
    def state(self, state: Sequence[int]) -> None:
        self._seed, self._counter = (int(value) for value in state)

    def start(self, replica: int, step: int) -> None:
        """Point torch's generator of the device at the stream of one micro batch."""
        self._generator.manual_seed(_mix(self._seed, self._counter, replica, step))

    def start_update(self) -> None:
        """Point the generator at the stream of a weight update, the same on all replicas."""
        self.start(replica=-1, step=0)

    def advance(self) -> None:
        """Go on to the next device iteration."""
        self._counter += 1


def _mix(*numbers: int) -> int:
    """A 63-bit seed that depends on every number."""
    digest = hashlib.blake2b(b",".join(str(number).encode() for number in numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def device_generator(device: torch.device) -> torch.Generator:
    """torch's own generator of a device: operations without a generator draw from it."""
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


@contextlib.contextmanager
def host_random_kept(device: Optional[torch.device] = None) -> Iterator[None]:
    """Leave torch's generator of a device (default: the CPU's) as it was."""
    generator = device_generator(device or torch.device("cpu"))
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)
