"""What agents and instances tell poprun: one JSON object on each line, behind a mark that no other output has."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional

_MARK = "\x1e"
_ATOMIC_BYTES = 4096  # several processes write to one pipe: Linux keeps writes of this size together (PIPE_BUF)
_PIECE = 300  # characters of output in a message; JSON writes each with at most twelve bytes


def send(**message: Any) -> None:
    """Tell poprun something, on standard output."""
    line = (_MARK + json.dumps(message) + "\n").encode()
    assert len(line) <= _ATOMIC_BYTES or "text" not in message
    try:
        os.write(1, line)
    except OSError:  # poprun is gone: whoever waits for it will notice
        pass


def send_output(instance: int, stream: str, text: str) -> None:
    """Hand on output of an instance."""
    for start in range(0, len(text), _PIECE):
        send(instance=instance, stream=stream, text=text[start : start + _PIECE])


def receive(line: str) -> Optional[Dict[str, Any]]:
    """The message on a line, None where there is other output."""
    return json.loads(line[1:]) if line.startswith(_MARK) else None
