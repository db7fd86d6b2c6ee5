"""The programs in examples/: each runs unadapted and compares itself with plain PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_examples_agree_with_plain_pytorch(program, tmp_path):
    if program.stem == "hugging_face":
        pytest.importorskip("transformers", reason="an optional requirement of this example alone")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-m", "ipu_model", str(program)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout and "IPU Model: no IPU is used" in result.stderr


def test_each_example_is_in_the_readme():
    text = (ROOT / "examples" / "README.md").read_text()
    assert len(PROGRAMS) >= 5 and all(f"`{path.name}`" in text for path in PROGRAMS)
