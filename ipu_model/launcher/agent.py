"""The agent of one host: runs torch.distributed.run over the host's instances, as poprun tells it on standard input.

The first line of standard input holds the settings; later lines are "interrupt" or "terminate". When standard input ends, poprun is gone
or has given up, and everything here ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

from .instance import GRACE_SECONDS, SETTINGS
from .messages import send
from .network import interface

_STOP_SIGNALS = {"interrupt": signal.SIGUSR1, "terminate": signal.SIGUSR2}


def main() -> None:
    """Serve one run; poprun judges by what instances tell, so the exit code only says whether torch.distributed.run ended well."""
    settings = json.loads(sys.stdin.readline())
    os.environ.update(settings["environment"])
    folder = Path(tempfile.mkdtemp(prefix="poprun-"))
    threading.Thread(target=_listen, args=(folder,), daemon=True).start()
    try:
        code = _run(settings, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(code)  # the listening thread and the store's threads have nothing left to do


def _listen(folder: Path) -> None:
    for line in sys.stdin:
        _signal_instances(folder, _STOP_SIGNALS[line.strip()])
    _signal_instances(folder, signal.SIGTERM)
    time.sleep(GRACE_SECONDS + 1.0)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _signal_instances(folder: Path, number: int) -> None:
    for path in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.stem), number)


def _run(settings: Dict[str, Any], folder: Path) -> int:
    # torch is imported here, when poprun can be heard already
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, rendezvous_handler_registry

    from .rendezvous import STORE_FILE, FixedHosts, open_store

    store, port = open_store(settings, folder)
    send(store_port=port)
    own = dict(settings["instance"], folder=str(folder))
    for variables in own["instances"]:
        variables.update(IPU_MODEL_STORE=_meeting_place(settings, folder / STORE_FILE, port), **_network(settings, port))

    def on_round(number: int) -> None:
        own.update(round=number)
        for variables in own["instances"]:
            variables.update(
                IPU_MODEL_ROUND=str(number), TORCHELASTIC_RESTART_COUNT=str(number - 1), TORCHELASTIC_RUN_ID=settings["run_id"]
            )
        os.environ[SETTINGS] = json.dumps(own)

    timeout = settings["timeout_seconds"]
    handler = FixedHosts(store, settings["address"], settings["host_index"], settings["num_hosts"], timeout, on_round)
    rendezvous_handler_registry.register("poprun", lambda parameters: handler)
    logging.getLogger("torch").setLevel(logging.INFO if settings["verbosity"] > 1 else logging.CRITICAL)
    try:
        torchrun.run(torchrun.parse_args(_torchrun_arguments(settings)))
    except (ChildFailedError, RendezvousClosedError):
        return 1
    return 0


def _meeting_place(settings: Dict[str, Any], file: Path, port: int) -> str:
    """Where the instances of this host meet, as `runtime.instances` reads it."""
    if settings["num_hosts"] == 1:
        return file.as_uri()
    host = "localhost" if settings["host_index"] == 0 else settings["store_host"]
    return f"tcp://{settings['token']}@{host}:{port}"


def _network(settings: Dict[str, Any], port: int) -> Dict[str, str]:
    name = interface(settings["store_host"] if settings["num_hosts"] > 1 else "localhost", port, settings["subnet"])
    return {} if name is None else {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _torchrun_arguments(settings: Dict[str, Any]) -> List[str]:
    return [
        f"--nnodes={settings['num_hosts']}",
        f"--nproc-per-node={settings['instance']['num_local']}",
        "--rdzv-backend=poprun",
        "--rdzv-endpoint=poprun",
        f"--rdzv-id={settings['run_id']}",
        f"--max-restarts={settings['max_restarts']}",
        "--monitor-interval=0.1",
        f"--local-addr={settings['address']}",
        "-m",
        "ipu_model.launcher.instance",
        *settings["program"],
    ]


if __name__ == "__main__":
    main()
