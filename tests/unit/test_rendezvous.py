"""Where the hosts of poprun meet: who does not know the token of a run cannot disturb it."""

from __future__ import annotations

import datetime

import pytest
from torch.distributed import TCPStore

from ipu_model.launcher.rendezvous import FixedHosts, open_store


def settings(host_index, num_hosts, port=None, token="secret"):
    return dict(host_index=host_index, num_hosts=num_hosts, store_host="localhost", store_port=port, token=token)


def hosts(store, index):
    return FixedHosts(store, "localhost", index, 2, 5.0, lambda number: None)


def test_one_host_has_no_port(tmp_path):
    store, port = open_store(settings(0, 1), tmp_path)
    assert port == 0 and [path.name for path in tmp_path.iterdir()] == ["store"]
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_strangers_cannot_end_a_run(tmp_path):
    store, port = open_store(settings(0, 2), tmp_path)
    first = hosts(store, 0)
    for stranger in (
        TCPStore("localhost", port, is_master=False, wait_for_workers=False, timeout=datetime.timedelta(seconds=5)),
        open_store(settings(1, 2, port, token="guessed"), tmp_path)[0],
    ):
        stranger.add("closed", 1)
        stranger.set("bootstrap", "elsewhere 1")
        assert not first.is_closed() and first.num_nodes_waiting() == 0
    own, _ = open_store(settings(1, 2, port), tmp_path)
    hosts(own, 1).set_closed()
    assert first.is_closed()


def test_a_token_is_needed(tmp_path):
    with pytest.raises(KeyError):
        open_store({"host_index": 0, "num_hosts": 2, "store_host": "localhost", "store_port": None}, tmp_path)
