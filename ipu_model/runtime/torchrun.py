"""Programs that torchrun started: each of its processes is an instance with one replica, as poprun's would be."""

from __future__ import annotations

import os
import sys
from typing import Dict

_VARIABLES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_POPRUN = ("POPDIST_NUM_TOTAL_REPLICAS", "OMPI_COMM_WORLD_SIZE")


def adopt() -> None:
    """Set poprun's variables where torchrun started several processes and poprun none; said once.

    Without them each process would train for itself, and nobody would notice.
    """
    environment = os.environ
    if any(name not in environment for name in _VARIABLES) or any(name in environment for name in _POPRUN):
        return
    count = int(environment["WORLD_SIZE"])
    if count == 1:
        return
    environment.update(_instance(environment["RANK"], environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"], count))
    if environment["RANK"] == "0":
        sys.stderr.write(
            f"IPU Model: started by torchrun; its {count} processes are {count} instances with one replica each, as with\n"
            f"  poprun --num-instances {count} --num-replicas {count} python PROGRAM\n"
        )


def _instance(rank: str, local_rank: str, local_size: str, count: int) -> Dict[str, str]:
    return {
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": rank,
        "OMPI_COMM_WORLD_LOCAL_RANK": local_rank,
        "OMPI_COMM_WORLD_LOCAL_SIZE": local_size,
        "POPDIST_NUM_TOTAL_REPLICAS": str(count),
        "POPDIST_NUM_LOCAL_REPLICAS": "1",
        "POPDIST_REPLICA_INDEX_OFFSET": rank,
        "POPDIST_LOCAL_INSTANCE_INDEX": local_rank,
    }
