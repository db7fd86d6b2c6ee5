"""Programs without a line for the IPU Model under poprun and torchrun, and over which network they talk."""

from __future__ import annotations

import subprocess
import sys

import pytest
from launching import ROOT, environment, poprun

# Each instance trains on its own half; equal weights show that gradients were shared.
PROGRAM = """#!/usr/bin/env python
import sys, torch, poptorch, popdist, popdist.poptorch
import config
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x):
        return poptorch.identity_loss(self.layer(x).square().mean(), reduction="none")
torch.manual_seed(0)
model = Model()
options = popdist.poptorch.Options(ipus_per_replica=1) if popdist.isPopdistEnvSet() else poptorch.Options()
training = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.1))
loader = poptorch.DataLoader(options, torch.arange(8.0).view(4, 2), batch_size=2)
for x in loader:
    training(x)
weights = [round(v, 5) for v in model.layer.weight.flatten().tolist()]
sys.stdout.write(f"{config.name} {popdist.getNumInstances()} {len(loader)} {weights}\\n")  # in one piece: torchrun's instances share a pipe
"""


@pytest.fixture
def program(tmp_path):
    """With a module that has the name of one of this project's folders."""
    (tmp_path / "config.py").write_text("name = 'own'")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def lines(done):
    """What the instances printed, without their numbers."""
    assert done.returncode == 0, done.stderr
    return [line.split("] ", 1)[1] if line.startswith("[") else line for line in done.stdout.splitlines() if "own" in line]


def test_unadapted_programs_are_instances(program):
    """As an argument of python, as an executable file, and under torchrun: the same two instances."""
    flags = ["--num-instances=2", "--num-replicas=2"]
    as_argument = lines(poprun(*flags, sys.executable, str(program)))
    assert len(as_argument) == 2 and as_argument[0] == as_argument[1] and as_argument[0].startswith("own 2 1 ")
    # `/usr/bin/env python` is this Python
    path = f"{ROOT / 'nowhere'}:{sys.executable.rsplit('/', 1)[0]}:/usr/bin:/bin"
    assert lines(poprun(*flags, str(program), PATH=path)) == as_argument
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    sdk = str(ROOT / "ipu_model" / "sdk")
    done = subprocess.run([*torchrun, str(program)], env=environment(PYTHONPATH=sdk), capture_output=True, text=True, timeout=240)
    assert lines(done) == as_argument
    assert done.stderr.count("poprun --num-instances 2 --num-replicas 2 python PROGRAM") == 1


LISTENING = """
import os, popdist
from pathlib import Path
popdist.init()
def sockets(process):
    for file in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = os.readlink(file)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
family, process, is_poprun = set(), os.getpid(), False
while not is_poprun:
    is_poprun = "ipu_model.poprun" in Path(f"/proc/{process}/cmdline").read_text()
    family.update(sockets(process))
    process = parent(process)
for name in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in family:
            print("listens", fields[1].split(":")[0])
print("looked at", len(family))
popdist.barrier()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its sockets")
def test_on_one_host_nothing_can_be_reached_from_outside(tmp_path):
    """Neither the instance nor the agent and poprun above it listen anywhere but on 127.0.0.1."""
    path = tmp_path / "program.py"
    path.write_text(LISTENING)
    done = poprun("--num-instances=2", "--num-replicas=2", sys.executable, str(path))
    assert done.returncode == 0, done.stderr
    assert "looked at" in done.stdout and "looked at 0" not in done.stdout
    listening = {line.split()[-1] for line in done.stdout.splitlines() if "listens" in line}
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
