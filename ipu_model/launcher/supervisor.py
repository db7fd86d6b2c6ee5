"""Runs all agents of a run to its end, and finds out which instance failed first."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import socket
import uuid
from typing import Any, Dict, List, Optional

from .flags import CommandLine, mpi_arguments
from .hosts import Agent, Event, handed_on_environment, is_this_host
from .output import Output, say
from .python_path import python_path
from .topology import Topology

_POLL_SECONDS = 0.2


class Supervisor:
    """One run: agents on all hosts, the output of their instances, interruptions, and the exit code."""

    def __init__(self, line: CommandLine, topology: Topology) -> None:
        self._line, self._topology = line, topology
        self._output = Output(line.values["only_output_from_instance"])
        self._events: queue.Queue[Event] = queue.Queue()
        self._agents: List[Agent] = []
        self._ended_agents: Dict[int, List[str]] = {}  # with what else they printed
        self._other_lines: Dict[int, List[str]] = {}
        self._ends: List[Dict[str, Any]] = []  # how instances of the present round ended, in order
        self._round = 1
        self._signals: List[int] = []
        self._num_handled = 0
        self._run_id = uuid.uuid4().hex
        self._token = secrets.token_hex(16)  # goes to agents on their standard input alone

    def run(self) -> int:
        """Start everything and wait for its end; the exit code of the instance that failed first, or 0."""
        previous = {number: signal.signal(number, self._note_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start(0, None)
            while len(self._ended_agents) < len(self._agents):
                self._handle_signals()
                try:
                    self._handle(self._events.get(timeout=_POLL_SECONDS))
                except queue.Empty:
                    pass
        finally:
            for agent in self._agents:
                agent.give_up()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self._conclude()

    # ---- agents

    def _start(self, host_index: int, store_port: Optional[int]) -> None:
        host = self._topology.hosts[host_index]
        agent = Agent(host_index, host, self._line.values["launcher_command"], self._events)
        self._agents.append(agent)
        if self._line.verbosity:
            say(f"{host}: {' '.join(agent.command)}")
        agent.tell(json.dumps(self._settings(host_index, store_port)))

    def _settings(self, host_index: int, store_port: Optional[int]) -> Dict[str, Any]:
        values, topology = self._line.values, self._topology
        count = topology.instances_per_host
        first = host_index * count
        hosts = [_address(host, topology) for host in topology.hosts]
        return {
            "host_index": host_index,
            "num_hosts": len(hosts),
            "address": hosts[host_index],
            "store_host": hosts[0],
            "store_port": store_port,
            "run_id": self._run_id,
            "token": self._token,
            "max_restarts": values["max_restarts"],
            "timeout_seconds": values["instance_timeout"],
            "subnet": values["host_subnet"],
            "verbosity": self._line.verbosity,
            "program": self._line.program,
            "environment": {} if is_this_host(topology.hosts[host_index]) else handed_on_environment(),
            "instance": {
                "first_instance": first,
                "num_local": count,
                "is_numa_aware": values["numa_aware"],
                "instances": [self._variables(first + local) for local in range(count)],
            },
        }

    def _variables(self, instance: int) -> Dict[str, str]:
        values = self._line.values
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // self._topology.instances_per_host))
        variables = {**self._topology.environment(instance), "OMP_NUM_THREADS": threads}
        variables["IPU_MODEL_INSTANCE_TIMEOUT_SECONDS"] = str(values["instance_timeout"])
        if values["executable_cache_path"]:
            variables["POPTORCH_CACHE_DIR"] = os.path.abspath(values["executable_cache_path"])
        for name, value in mpi_arguments(values)[0].items():
            variables[name] = os.environ.get(name, "") if value is None else value
        if "PYTHONPATH" in variables:
            variables["PYTHONPATH"] = python_path(variables["PYTHONPATH"])
        return variables

    # ---- events

    def _note_signal(self, number: int, frame: Any) -> None:
        self._signals.append(number)

    def _handle_signals(self) -> None:
        """The first signal asks all instances to stop, the second gives up on them, the third kills."""
        while self._num_handled < len(self._signals):
            number = self._signals[self._num_handled]
            self._num_handled += 1
            for agent in self._agents:
                if self._num_handled == 1:
                    agent.tell("interrupt" if number == signal.SIGINT else "terminate")
                elif self._num_handled == 2:
                    agent.give_up()
                else:
                    agent.kill()
            if self._num_handled == 1:
                say("stopping; once more ends all instances at once")

    def _handle(self, event: Event) -> None:
        if event.message is None and event.line is None:
            self._agent_ended(event.host_index)
        elif event.message is None:
            assert event.line is not None
            self._other_lines.setdefault(event.host_index, []).append(event.line.rstrip("\n"))
            if self._line.verbosity > 1:
                say(f"{self._topology.hosts[event.host_index]}: {event.line.rstrip()}")
        elif "store_port" in event.message:
            for host_index in range(1, len(self._topology.hosts)) if event.host_index == 0 else ():
                self._start(host_index, event.message["store_port"])
        elif "text" in event.message:
            self._output.add(event.message["instance"], event.message["stream"], event.message["text"])
        elif "started" in event.message:
            self._instance_started(event.message)
        else:
            self._instance_ended(event.message)

    def _agent_ended(self, host_index: int) -> None:
        self._ended_agents[host_index] = self._other_lines.get(host_index, [])
        if self._agents[host_index].exit_code:
            for agent in self._agents:
                agent.give_up()

    def _instance_started(self, message: Dict[str, Any]) -> None:
        if message["round"] > self._round:
            failed = self._first_failure()
            why = self._describe(failed) if failed else "an instance ended"
            self._round = message["round"]
            self._ends = []
            self._output.forget_errors()
            say(f"{why}; all instances start again (restart {self._round - 1} of {self._line.values['max_restarts']})")

    def _instance_ended(self, message: Dict[str, Any]) -> None:
        self._output.finish(message["instance"])
        if message["round"] == self._round:
            self._ends.append(message)

    # ---- the end

    def _first_failure(self) -> Optional[Dict[str, Any]]:
        """The first instance that failed by itself, or else the first that failed."""
        failed = [end for end in self._ends if end["code"]]
        return next((end for end in failed if not end["is_consequence"]), failed[0] if failed else None)

    def _describe(self, end: Dict[str, Any]) -> str:
        where = f"instance {end['instance']} on {self._topology.host_of(end['instance'])}"
        code = end["code"]
        return f"{where} was killed by {signal.Signals(-code).name}" if code < 0 else f"{where} ended with exit code {code}"

    def _conclude(self) -> int:
        end = self._first_failure()
        if end is not None:
            if end["is_stopped"]:
                say("all instances have stopped")
            else:
                self._show_failure(end)
            return 128 - end["code"] if end["code"] < 0 else end["code"]
        if len(self._ends) == self._topology.num_instances:
            return 0
        for host_index, lines in sorted(self._ended_agents.items()):
            code = self._agents[host_index].exit_code
            if code:
                say("\n  ".join([f"the agent on {self._topology.hosts[host_index]} ended with exit code {code}:", *lines[-20:]]))
        return 1 if not self._signals else 128 + self._signals[0]

    def _show_failure(self, end: Dict[str, Any]) -> None:
        lines = self._output.last_errors(end["instance"])
        say(self._describe(end) + (", its last errors:" if lines else ", it wrote no error"))
        for line in lines:
            say(f"  {line}")


def _address(host: str, topology: Topology) -> str:
    """The name by which other hosts reach a host."""
    is_local = host in ("localhost", "127.0.0.1")
    return socket.gethostname() if is_local and len(topology.hosts) > 1 else host
