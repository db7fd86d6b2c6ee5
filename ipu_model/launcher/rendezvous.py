"""Where the agents of torch.distributed.run meet: a fixed list of hosts, each with a fixed place in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from torch.distributed import FileStore, PrefixStore, Store, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousHandler, RendezvousTimeoutError, api
from torch.distributed.elastic.utils.distributed import get_free_port

_POLL_SECONDS = 0.05
STORE_FILE = "store"  # in the agent's folder, which nobody else can open


def open_store(settings: Dict[str, Any], folder: Path) -> Tuple[Store, int]:
    """The store of a run and its port, 0 where it has none.

    One host needs no port: its store is a file in the agent's own folder. Between hosts it is a server on the first one, at a port that the
    system chooses so that runs do not collide; all that is kept there lies under the token of the run, which only its own agents know.
    """
    if settings["num_hosts"] == 1:
        return FileStore(str(folder / STORE_FILE), -1), 0
    is_first = settings["host_index"] == 0
    host = "localhost" if is_first else settings["store_host"]
    server = TCPStore(host, 0 if is_first else settings["store_port"], is_master=is_first, wait_for_workers=False)
    return PrefixStore(settings["token"], server), server.port


class FixedHosts(RendezvousHandler):
    """All hosts meet in rounds: one at the start, one more at each restart.

    `on_round` is told the number of the round, the same on all hosts, before instances are started.
    """

    def __init__(
        self, store: Store, address: str, host_index: int, num_hosts: int, timeout: float, on_round: Callable[[int], None]
    ) -> None:
        self._store, self._address, self._host_index, self._num_hosts = store, address, host_index, num_hosts
        self._timeout, self._on_round = timeout, on_round
        self._round = 0

    def get_backend(self) -> str:
        """Name of this kind of rendezvous."""
        return "poprun"

    def get_run_id(self) -> str:
        """The store belongs to one run."""
        return "poprun"

    def next_rendezvous(self) -> Any:
        """Wait for all hosts; the place of this one is its place in the list."""
        self._round += 1
        key = f"arrived/{self._round}"
        self._store.add(key, 1)
        deadline = time.monotonic() + self._timeout
        while self._store.add(key, 0) < self._num_hosts:
            if self.is_closed():
                raise RendezvousClosedError("another host has ended the run")
            if time.monotonic() > deadline:
                raise RendezvousTimeoutError(f"{self._store.add(key, 0)} of {self._num_hosts} hosts came within {self._timeout:.0f} s")
            time.sleep(_POLL_SECONDS)
        self._on_round(self._round)
        store = PrefixStore(f"round/{self._round}", self._store)
        if not hasattr(api, "RendezvousInfo"):  # before torch 2.4
            return store, self._host_index, self._num_hosts
        return api.RendezvousInfo(store, self._host_index, self._num_hosts, api.RendezvousStoreInfo(*self._bootstrap(store)))

    def _bootstrap(self, store: Store) -> Tuple[str, int]:
        """MASTER_ADDR and MASTER_PORT of a round, for programs that use torch.distributed themselves."""
        if self._host_index == 0:
            store.set("bootstrap", f"{self._address} {get_free_port()}")
        address, port = store.get("bootstrap").decode().split()
        return address, int(port)

    def is_closed(self) -> bool:
        """Whether another host has ended the run."""
        return self._num_hosts > 1 and self._store.add("closed", 0) > 0

    def set_closed(self) -> None:
        """End the run for all hosts."""
        self._store.add("closed", 1)

    def num_nodes_waiting(self) -> int:
        """Other hosts that wait for the next round: more than none when an instance of theirs has failed."""
        return 0 if self._num_hosts == 1 else self._store.add(f"arrived/{self._round + 1}", 0)

    def shutdown(self) -> bool:
        """Nobody meets here any longer."""
        self.set_closed()
        return True
