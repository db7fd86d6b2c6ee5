"""The IPU Model's poptorch where there is no Poplar SDK, and what tests share."""

from __future__ import annotations

import pytest

import ipu_model  # noqa: F401  before anything that imports poptorch


@pytest.fixture
def generator():
    """Random numbers of a test."""
    torch = pytest.importorskip("torch")
    return torch.Generator().manual_seed(1234)
