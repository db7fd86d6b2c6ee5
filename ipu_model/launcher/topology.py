"""Which instance runs on which host with which replicas, and the environment that tells it so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple


class TopologyError(ValueError):
    """Instances, replicas and hosts do not fit together: the message says what was expected, what came, and what to do."""


class Topology(NamedTuple):
    """Instances in the order of hosts; replicas in the order of instances."""

    hosts: Tuple[str, ...]
    num_instances: int
    num_replicas: int
    ipus_per_replica: int

    @property
    def instances_per_host(self) -> int:
        """Processes on each host."""
        return self.num_instances // len(self.hosts)

    @property
    def replicas_per_instance(self) -> int:
        """Replicas of each process."""
        return self.num_replicas // self.num_instances

    def host_of(self, instance: int) -> str:
        """Where an instance runs."""
        return self.hosts[instance // self.instances_per_host]

    def environment(self, instance: int) -> Dict[str, str]:
        """What poprun and mpirun set for an instance (poptorch_api.md, section 13)."""
        local = instance % self.instances_per_host
        numbers = {
            "OMPI_COMM_WORLD_SIZE": self.num_instances,
            "OMPI_COMM_WORLD_RANK": instance,
            "OMPI_COMM_WORLD_LOCAL_RANK": local,
            "OMPI_COMM_WORLD_LOCAL_SIZE": self.instances_per_host,
            "POPDIST_NUM_TOTAL_REPLICAS": self.num_replicas,
            "POPDIST_NUM_LOCAL_REPLICAS": self.replicas_per_instance,
            "POPDIST_NUM_IPUS_PER_REPLICA": self.ipus_per_replica,
            "POPDIST_UNIFORM_REPLICAS_PER_INSTANCE": 1,
            "POPDIST_REPLICA_INDEX_OFFSET": instance * self.replicas_per_instance,
            "POPDIST_LOCAL_INSTANCE_INDEX": local,
        }
        return {name: str(value) for name, value in numbers.items()}

    def table(self) -> List[str]:
        """What `--print-topology` prints."""
        lines = [
            f"{self.num_instances} instances x {self.replicas_per_instance} replicas x {self.ipus_per_replica} IPUs = "
            f"{self.num_replicas * self.ipus_per_replica} IPUs",
            f"{'instance':>8}  {'host':<20}  replicas",
        ]
        for instance in range(self.num_instances):
            first = instance * self.replicas_per_instance
            last = first + self.replicas_per_instance - 1
            lines.append(f"{instance:>8}  {self.host_of(instance):<20}  {first}" + (f"-{last}" if last > first else ""))
        return lines


def build_topology(values: Mapping[str, Any]) -> Topology:
    """The topology that the flags ask for.

    Raises:
        TopologyError: a number below 1, replicas that are not a multiple of instances, instances not of hosts, or no such host file.
    """
    for name in ("num_instances", "num_replicas", "ipus_per_replica"):
        if values[name] < 1:
            raise TopologyError(f"--{name.replace('_', '-')} must be at least 1, got {values[name]}")
    instances, replicas = values["num_instances"], values["num_replicas"]
    if replicas % instances:
        below = max(replicas // instances, 1) * instances
        raise TopologyError(
            f"--num-replicas {replicas} is not a multiple of --num-instances {instances}: each instance gets as many replicas; nearest: "
            f"{below}, {below + instances}"
        )
    only = values["only_output_from_instance"]
    if only is not None and not 0 <= only < instances:
        raise TopologyError(f"--only-output-from-instance {only}: instances are numbered from 0 to {instances - 1}")
    hosts = _hosts(values)
    if instances % len(hosts):
        raise TopologyError(f"--num-instances {instances} is not a multiple of the {len(hosts)} hosts: each gets as many instances")
    for host, slots in hosts:
        if slots not in (0, instances // len(hosts)):
            raise TopologyError(f"host {host} has {slots} slots, each host gets {instances // len(hosts)} instances: state that, or none")
    return Topology(tuple(host for host, _ in hosts), instances, replicas, values["ipus_per_replica"])


def _hosts(values: Mapping[str, Any]) -> List[Tuple[str, int]]:
    """Names, and slots where they are stated (`a:2`, or `a slots=2` in a file), else 0."""
    if values["host"] and values["hostfile"]:
        raise TopologyError("--host and --hostfile both name hosts: give one of them")
    entries = values["host"].split(",")
    if values["hostfile"]:
        try:
            text = Path(values["hostfile"]).read_text(encoding="utf-8")
        except OSError as error:
            raise TopologyError(f"--hostfile {values['hostfile']}: {error.strerror}") from error
        entries = [line.split("#")[0] for line in text.splitlines() if line.split("#")[0].strip()]
    elif not values["host"]:
        return [("localhost", 0)]
    hosts = [_host(entry.strip()) for entry in entries]
    names = [host for host, _ in hosts]
    if not hosts or len(set(names)) < len(names):
        raise TopologyError(f"expected different hosts, got {', '.join(names) or 'none'}")
    return hosts


def _host(entry: str) -> Tuple[str, int]:
    match = re.fullmatch(r"(\w[\w.-]*)(?:(?::|\s+slots\s*=\s*)(\d+))?", entry)
    if not match:
        raise TopologyError(f"expected the name of a host, as in a, or a:2, got {entry!r}")
    return match.group(1), int(match.group(2) or 0)
