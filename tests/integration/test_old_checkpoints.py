"""Checkpoints that earlier releases wrote."""

from __future__ import annotations

import pytest
import torch
from running import rows, run, validated

from training.errors import CheckpointError


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # torch 2.0's own, when it reads
def test_without_the_field_of_proxy_norms_scale_it_is_the_network_of_its_time(tmp_path):
    """The scale acted everywhere then. Validation goes by the checkpoint; resuming with today's default is refused, and says why."""
    folder = tmp_path / "run"
    run(folder, proxy_norm_scale="everywhere")
    for path in (folder / "checkpoints").glob("*.pt"):
        payload = torch.load(path, weights_only=True)
        del payload["config"]["model"]["proxy_norm_scale"]
        torch.save(payload, path)
    recorded = {row["weights"]: row for row in rows(folder, "validation.csv")}
    assert validated(folder)["val_loss"] == pytest.approx(float(recorded["averaged"]["loss"]), rel=1e-6)
    with pytest.raises(CheckpointError, match="proxy_norm_scale was 'everywhere', is 'folded'"):
        run(folder, resume="auto")
    assert run(folder, resume="auto", proxy_norm_scale="everywhere")
