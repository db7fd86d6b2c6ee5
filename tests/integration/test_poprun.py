"""poprun: instances of one program, their collectives and gradients, and several hosts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, command, environment, poprun

# One program for all numbers of instances: four replicas, two accumulation steps, two updates in a call, dropout, momentum.
REPLICAS = """
import hashlib, torch, ipu_model, poptorch, popdist, popdist.poptorch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(30, 500), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(500, 5))
        self.loss = torch.nn.CrossEntropyLoss()
    def forward(self, x, y):
        return self.loss(self.layers(x), y)
torch.manual_seed(0)
model = Model()
options = popdist.poptorch.Options() if popdist.isPopdistEnvSet() else poptorch.Options().replicationFactor(4)
options.randomSeed(3).deviceIterations(2).outputMode(poptorch.OutputMode.All)
options.Training.gradientAccumulation(2)
count, first = options.replication_factor, popdist.getReplicaIndexOffset()
training = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
generator = torch.Generator().manual_seed(1)
for _ in range(3):
    x = torch.randn(4, 4, 8, 30, generator=generator)[:, first : first + count]
    y = torch.randint(5, (4, 4, 8), generator=generator)[:, first : first + count]
    losses = training(x.reshape(-1, 30), y.reshape(-1)).reshape(4, count)
    losses = popdist.allGather(losses.t().contiguous())
    if popdist.getInstanceIndex() == 0:
        print(losses.tolist())
training.copyWeightsToHost()
print(hashlib.md5(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
"""


def program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def results(done):
    """Losses, and hashes of the weights, of a REPLICAS program; instances print their lines in any order."""
    lines = [line.split("] ", 1)[1] if line[:1] == "[" and line[1:2].isdigit() else line for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    return [line for line in lines if line.startswith("[[")], [line for line in lines if not line.startswith("[[")]


# ---- the launcher


def test_output_has_the_instance_and_the_error_of_the_failed_one_comes_last(tmp_path):
    run = program(
        tmp_path,
        "import os, sys, time\n"
        "rank = os.environ['OMPI_COMM_WORLD_RANK']\n"
        "print('hello', rank, os.environ['A'], *sys.argv[1:])\n"
        "if rank == '1': time.sleep(1); sys.exit('no more\\nof this') if not sys.argv[2:] else os._exit(7)\n"
        "time.sleep(60)\n"
        "print('nothing ended me')\n",
    )
    flags = ["--num-instances=2", "--num-replicas=4", "--mpi-global-args=-x A=b", "--print-topology"]
    done = poprun(*flags, *run, "--num-instances")
    assert done.returncode == 1
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("[")) == [
        "[0] hello 0 b --num-instances",
        "[1] hello 1 b --num-instances",
    ]
    assert "2 instances x 2 replicas x 1 IPUs = 4 IPUs" in done.stdout
    assert done.stderr.splitlines()[-3:] == [
        "poprun: instance 1 on localhost ended with exit code 1, its last errors:",
        "poprun:   no more",
        "poprun:   of this",
    ]
    done = poprun(*flags, "--only-output-from-instance=0", *run, "a", "b")
    assert done.returncode == 7 and "[1]" not in done.stdout and "[0] hello 0 b a b" in done.stdout


def test_output_that_nobody_reads_ends_all_instances(tmp_path):
    path = tmp_path / "ends"
    text = f"import os, time\nopen({str(path)!r} + os.environ['OMPI_COMM_WORLD_RANK'], 'w').write(str(os.getpid()))\n"
    text += "while True: print('line', flush=True); time.sleep(0.1)\n"
    run = command("--num-instances=2", "--num-replicas=2", *program(tmp_path, text))
    process = subprocess.Popen(run, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().endswith("line\n")
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=60)[1].count("Traceback") == 0 and process.returncode == 128 + signal.SIGPIPE
    files = list(tmp_path.glob("ends*"))
    assert files
    for file in files:
        wait_until_gone(int(file.read_text()))


def wait_until_gone(process):
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline, f"process {process} still runs"
        time.sleep(0.1)


def test_a_program_that_cannot_start():
    done = poprun("--num-instances=1", "no-such-program")
    assert done.returncode == 127 and "cannot start no-such-program: No such file or directory" in done.stderr
    for name in ("train.py", "./train.py"):  # there, but neither on the path nor executable
        done = poprun(name, "--config", "a b")
        assert done.returncode == 127 and f"; type python {name} --config 'a b'" in done.stderr


def test_numbers_that_do_not_fit_are_refused_at_once():
    done = poprun("--num-instances=2", "--num-replicas=3", "true")
    assert done.returncode == 2 and done.stderr.startswith("poprun: error: --num-replicas 3 is not a multiple of --num-instances 2")


# ---- popdist


def test_collectives_and_functions_on_some_instances(tmp_path):
    run = program(
        tmp_path,
        "import torch, ipu_model, popdist\n"
        "popdist.init()\n"
        "me = popdist.getInstanceIndex()\n"
        "value = torch.tensor([10.0 ** me])\n"
        "results = [popdist.allGather(value).tolist(), popdist.allReduce(value).tolist(), popdist.allReduce(value, 'mean').tolist(),\n"
        "           popdist.broadcast(value, 1).tolist(), popdist.execute_on_instances({1}, lambda a: a + me, 5)]\n"
        "popdist.barrier()\n"
        "print(*results)\n",
    )
    done = poprun("--num-instances=2", "--num-replicas=2", *run)
    assert sorted(done.stdout.splitlines()) == [
        "[0] [1.0, 10.0] [11.0] [5.5] [10.0] None",
        "[1] [1.0, 10.0] [11.0] [5.5] [10.0] 6",
    ], done.stderr


def test_replicas_give_the_same_bits_in_one_process_and_in_several(tmp_path):
    run = program(tmp_path, REPLICAS)
    losses, hashes = results(subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=240))
    assert len(losses) == 3 and len(hashes) == 1
    for instances in (2, 4):
        assert results(poprun(f"--num-instances={instances}", "--num-replicas=4", *run)) == (losses, hashes * instances)


def test_a_hung_instance_is_named_and_two_runs_do_not_collide(tmp_path):
    run = program(
        tmp_path,
        "import os, signal, sys, ipu_model, popdist\n"
        "popdist.init()\n"
        "if popdist.getInstanceIndex() == 1 and sys.argv[1] == 'hang': os.kill(os.getpid(), signal.SIGSTOP)\n"
        "popdist.barrier()\n",
    )
    flags = ["--num-instances=2", "--num-replicas=2"]
    good = subprocess.Popen(command(*flags, *run, "go"), cwd=ROOT, env=environment())
    hung = poprun(*flags, "--instance-timeout=6", *run, "hang")
    assert hung.returncode == 1
    assert "LostInstanceError: 'poptorch_py_error': instance 1 (host" in hung.stderr
    assert "did not come within 6 s: it hangs, or needs longer (poprun --instance-timeout SECONDS)" in hung.stderr
    assert good.wait(timeout=60) == 0


def test_several_processes_without_a_meeting_place_say_what_to_do(monkeypatch):
    from ipu_model.runtime import instances
    from ipu_model.runtime.errors import Error

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(Error, match="start them with python -m ipu_model.poprun"):
        instances.join(0, 2)


# ---- several hosts

HOSTS = ("10.77.0.1", "10.77.0.2")  # each a network namespace of this name, with this address


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def two_hosts():
    try:
        tried = ip("netns", "add", HOSTS[0])
    except FileNotFoundError:
        pytest.skip("no `ip` here: network namespaces cannot be made")
    if tried.returncode:
        pytest.skip(f"network namespaces cannot be made here: {tried.stderr.strip()}")
    try:
        ip("netns", "add", HOSTS[1])
        ip("link", "add", "hosts0", "netns", HOSTS[0], "type", "veth", "peer", "name", "hosts1", "netns", HOSTS[1])
        for number, host in enumerate(HOSTS):
            ip("-n", host, "addr", "add", f"{host}/24", "dev", f"hosts{number}")
            ip("-n", host, "link", "set", "lo", "up")
            if ip("-n", host, "link", "set", f"hosts{number}", "up").returncode:
                pytest.skip("a pair of virtual network devices cannot be made here")
        yield HOSTS
    finally:
        for host in HOSTS:
            ip("netns", "del", host)


def test_two_hosts_from_one_command(tmp_path, two_hosts):
    run = program(tmp_path, REPLICAS)
    losses, hashes = results(subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=240))
    launcher = "ip netns exec {host} sh -c {command}"
    done = poprun("--host", ",".join(two_hosts), "--launcher-command", launcher, "--num-instances=2", "--num-replicas=4", *run)
    assert results(done) == (losses, hashes * 2)
    statistics = ip("-n", two_hosts[1], "-s", "-j", "link", "show", "hosts1")
    received = json.loads(statistics.stdout)[0]["stats64"]["rx"]["bytes"]
    assert received > 3 * 2 * 4 * 18_000  # six updates of 18,005 float32 gradients went over the wire


def test_a_host_that_cannot_be_reached_is_named():
    done = poprun("--host", "nowhere.invalid", "--launcher-command", "sh -c 'echo cannot reach {host} >&2; exit 255'", "true")
    assert done.returncode == 1
    assert "poprun: the agent on nowhere.invalid ended with exit code 255:\n  cannot reach nowhere.invalid" in done.stderr
