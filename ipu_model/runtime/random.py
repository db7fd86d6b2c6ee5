"""The device's random numbers: a counter, so that a stream can be saved, restored, and continued under another layout."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Iterator, List, Sequence

import torch


class DeviceRandom:
    """Random state `[seed, counter]`; the counter is the number of device iterations run.

    Every micro batch draws from a stream of its own, given by (seed, counter, replica, accumulation step): replicas and steps differ,
    and the numbers do not depend on how replicas are spread over processes.
    """

    def __init__(self, seed: int) -> None:
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
        """Point torch's generators at the stream of one micro batch."""
        torch.manual_seed(_mix(self._seed, self._counter, replica, step))

    def advance(self) -> None:
        """Go on to the next device iteration."""
        self._counter += 1


def _mix(*numbers: int) -> int:
    """A 63-bit seed that depends on every number."""
    digest = hashlib.blake2b(b",".join(str(number).encode() for number in numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def host_random_kept() -> Iterator[None]:
    """Leave torch's CPU generator as it was."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
