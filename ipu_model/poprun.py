"""`python -m ipu_model.poprun [FLAGS] PROGRAM [ARGUMENTS...]`: one program as several instances, on one host or several."""

from __future__ import annotations

import os
import signal
import sys
from typing import Optional, Sequence

from ipu_model.launcher.flags import parse
from ipu_model.launcher.output import say
from ipu_model.launcher.supervisor import Supervisor
from ipu_model.launcher.topology import TopologyError, build_topology


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a program as poprun's flags say; the exit code is that of the instance that failed first, 0 where none did."""
    line = parse(arguments)
    try:
        topology = build_topology(line.values)
    except TopologyError as error:
        sys.stderr.write(f"poprun: error: {error}\n")
        return 2
    for note in line.notes:
        say(note)
    try:
        if line.values["print_topology"]:
            sys.stdout.write("\n".join(topology.table()) + "\n")
            sys.stdout.flush()
        return Supervisor(line, topology).run()
    except BrokenPipeError:  # nobody reads the output any more (`| head`): the instances have been ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
