"""Finished runs, each made once for all test files and all of pytest's processes."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest
from filelock import FileLock
from running import run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Gives the folder of a run of tiny with the given fields, one epoch unless they say otherwise; nobody may change it."""
    # The folder that pytest's processes share: each has its own below it.
    place = tmp_path_factory.getbasetemp()
    place = (place.parent if os.environ.get("PYTEST_XDIST_WORKER") else place) / "finished-runs"
    place.mkdir(exist_ok=True)

    def make(**fields):
        folder = place / hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:16]
        with FileLock(f"{folder}.lock"):
            if not (folder / "done").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                run(folder / "run", **fields)
                (folder / "done").touch()
        return folder / "run"

    return make


@pytest.fixture
def finished(finished_run, tmp_path):
    """A finished run of one epoch, which the test may change."""
    shutil.copytree(finished_run(checkpoint_every_epochs=1), tmp_path / "run")
    return tmp_path / "run"
