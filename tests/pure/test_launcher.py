"""poprun's command line and topology: what it takes, what it refuses, and what instances are told."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
from hypothesis import given, strategies as st

from ipu_model.launcher import messages, python_path
from ipu_model.launcher.flags import DEFAULT_LAUNCHER, FLAGS, parse
from ipu_model.launcher.hosts import _command
from ipu_model.launcher.instance import _cores
from ipu_model.launcher.network import interface
from ipu_model.launcher.output import Output
from ipu_model.launcher.topology import TopologyError, build_topology

PROGRAM = ["python", "train.py", "--config", "digits", "--num-replicas", "9"]


def topology(*arguments):
    return build_topology(parse([*arguments, "program"]).values)


def test_flags_end_where_the_program_begins():
    line = parse(["--num-instances=2", "--num-replicas", "4", "--ipus-per-replica=2", "-vv", *PROGRAM])
    assert (line.values["num_instances"], line.values["num_replicas"], line.values["ipus_per_replica"]) == (2, 4, 2)
    assert (line.program, line.verbosity, line.notes) == (PROGRAM, 2, [])


@pytest.mark.parametrize(("given_as", "expected"), [(["-v"], 1), (["-vv"], 2), (["--vv"], 2), (["--v", "-v"], 2), (["--verbose"], 1)])
def test_verbosity(given_as, expected):
    assert parse([*given_as, *PROGRAM]).verbosity == expected


def test_a_host_cannot_be_an_option_of_ssh():
    command = _command("host", DEFAULT_LAUNCHER)
    assert command[0] == "ssh" and command[command.index("--") + 1] == "host"


def test_other_processes_get_one_folder_more(monkeypatch, tmp_path):
    """And nothing of a clone, whose folders have usual names."""
    monkeypatch.setattr(python_path.sys, "path", [str(tmp_path)])
    clone = str(python_path.PACKAGE.parent)
    assert python_path.python_path(f"{tmp_path}:{clone}") == f"{tmp_path}:{python_path.SDK}"
    (tmp_path / "poptorch.py").write_text("")
    importlib.invalidate_caches()
    assert python_path.python_path(f"{tmp_path}:{clone}") == str(tmp_path)  # the Poplar SDK's own


@pytest.mark.parametrize("given_as", [["--print-topology"], ["--print-topology=yes"], ["--print-topology", "1"]])
def test_a_boolean_flag_needs_no_value(given_as):
    line = parse([*given_as, *PROGRAM])
    assert line.values["print_topology"] is True and line.program == PROGRAM
    assert parse(["--print-topology", "no", *PROGRAM]).values["print_topology"] is False


def test_every_flag_has_a_meaning_or_says_why_not():
    """Whatever the specification lists is accepted; what has no meaning without IPUs says so in one line."""
    documented = (
        "num-replicas num-instances ipus-per-replica num-ilds host hostfile host-subnet vipu-server-host vipu-server-port "
        "vipu-server-timeout vipu-partition vipu-allocation vipu-cluster vipu-partition-attempts update-partition reset-partition "
        "remove-partition executable-cache-path mpi-global-args mpi-local-args numa-aware only-output-from-instance print-topology "
        "offline-mode import-config export-config overwrite-config version-format"
    )
    assert {f"--{name}" for name in documented.split()} <= {flag.name for flag in FLAGS}
    line = parse(["--vipu-partition", "p", "--num-ilds=2", "--offline-mode", "--mpi-global-args", "-x A=1 --tag-output", *PROGRAM])
    assert [note.split(" ")[0] for note in line.notes] == ["--offline-mode", "--num-ilds", "--vipu-partition", "--tag-output"]
    assert all("has no meaning here" in note for note in line.notes)


@pytest.mark.parametrize(
    "arguments, fragment",
    [
        (["--num-instance", "2", "p"], "--num-instance"),
        (["--num-instances", "two", "p"], "invalid int value: 'two'"),
        (["--numa-aware=maybe", "p"], "expected one of 1, yes, true, on, 0, no, false, off, got 'maybe'"),
        (["--num-instances", "2"], "no program"),
        (["--mpi-global-args=-x", "p"], "-x in mpirun's arguments takes NAME or NAME=VALUE"),
        (["--import-config", "/nowhere.json", "p"], "/nowhere.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, fragment):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    message = capsys.readouterr().err
    assert ended.value.code == 2 and fragment in message and message.count("\n") == 1


def test_flags_go_to_a_file_and_come_back(tmp_path, capsys):
    path = tmp_path / "flags.json"
    parse(["--num-instances=2", "--num-replicas=4", f"--export-config={path}", "p"])
    assert json.loads(path.read_text())["num_replicas"] == 4
    values = parse([f"--import-config={path}", "--num-replicas=6", "p"]).values
    assert (values["num_instances"], values["num_replicas"]) == (2, 6)
    with pytest.raises(SystemExit):
        parse([f"--export-config={path}", "p"])
    assert "exists" in capsys.readouterr().err
    parse([f"--export-config={path}", "--overwrite-config", "p"])
    path.write_text('{"num_replica": 1}')
    with pytest.raises(SystemExit):
        parse([f"--import-config={path}", "p"])
    assert "unknown num_replica" in capsys.readouterr().err


@pytest.mark.slow
@given(hosts=st.integers(1, 4), per_host=st.integers(1, 4), local=st.integers(1, 5), ipus=st.integers(1, 4))
def test_each_replica_belongs_to_one_instance(hosts, per_host, local, ipus):
    instances = hosts * per_host
    names = ",".join(f"host{index}" for index in range(hosts))
    built = topology(f"--host={names}", f"--num-instances={instances}", f"--num-replicas={instances * local}", f"--ipus-per-replica={ipus}")
    replicas = []
    for instance in range(instances):
        variables = {name: int(value) for name, value in built.environment(instance).items()}
        first, count = variables["POPDIST_REPLICA_INDEX_OFFSET"], variables["POPDIST_NUM_LOCAL_REPLICAS"]
        replicas += range(first, first + count)
        assert variables["OMPI_COMM_WORLD_RANK"] == instance and variables["OMPI_COMM_WORLD_SIZE"] == instances
        assert built.host_of(instance) == f"host{instance // per_host}"
        assert variables["POPDIST_LOCAL_INSTANCE_INDEX"] == variables["OMPI_COMM_WORLD_LOCAL_RANK"] == instance % per_host
    assert replicas == list(range(instances * local))


@pytest.mark.parametrize(
    "arguments, fragment",
    [
        (["--num-instances=2", "--num-replicas=3"], "--num-replicas 3 is not a multiple of --num-instances 2"),
        (["--num-instances=0"], "--num-instances must be at least 1, got 0"),
        (["--num-instances=3", "--num-replicas=3", "--host=a,b"], "--num-instances 3 is not a multiple of the 2 hosts"),
        (["--host=a,a", "--num-instances=2", "--num-replicas=2"], "expected different hosts, got a, a"),
        (["--host=a b"], "expected the name of a host"),
        (["--host=-oProxyCommand=evil"], "expected the name of a host, as in a, or a:2, got '-oProxyCommand=evil'"),
        (["--host=-l"], "expected the name of a host"),
        (["--host=a:3"], "host a has 3 slots, each host gets 1 instances"),
        (["--host=a", "--hostfile=b"], "--host and --hostfile"),
        (["--hostfile=/nowhere"], "--hostfile /nowhere: No such file or directory"),
        (["--only-output-from-instance=1"], "instances are numbered from 0 to 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, fragment):
    with pytest.raises(TopologyError, match=fragment):
        topology(*arguments)


def test_a_host_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# two machines\na slots=1\n\nb:1  # the second\n")
    assert topology("--hostfile", str(path), "--num-instances=2", "--num-replicas=2").hosts == ("a", "b")


# ---- what it is made of


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 60))
def test_output_travels_in_pieces_that_a_pipe_keeps_together(text, times):
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages.os, "write", lambda target, data: written.append(data))
        messages.send_output(3, "stdout", text * times)
    assert all(len(line) <= 4096 and line.count(b"\n") == 1 for line in written)
    received = [messages.receive(line.decode()) for line in written]
    assert "".join(message["text"] for message in received) == text * times
    assert messages.receive("other output\n") is None


def test_lines_are_joined_and_numbered(capsys):
    output = Output(only=None)
    for instance, stream, text in ((0, "stdout", "a"), (1, "stdout", "b\nc"), (0, "stdout", "d\n"), (1, "stderr", "oh\nno")):
        output.add(instance, stream, text)
    output.finish(1)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["[1] b", "[0] ad", "[1] c"]
    assert shown.err.splitlines() == ["[1] oh", "[1] no"] and output.last_errors(1) == ["oh", "no"]


def test_lists_of_cores():
    assert _cores("0-3,8\n") == {0, 1, 2, 3, 8} and _cores("") == set()


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for by a call of Linux")
def test_the_interface_that_leads_to_a_host():
    assert interface("localhost", 1) == interface("localhost", 1, "127.0.0.0/8") == "lo"
    with pytest.raises(ValueError, match="--host-subnet 203.0.113.0/24: this host has .*127.0.0.1"):
        interface("localhost", 1, "203.0.113.0/24")
