"""What the benchmarks compute, apart from their running times."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from benchmarks import denormalization, study
from config import ModelConfig
from models.factory import build_model


@settings(max_examples=20, deadline=None)
@given(mean=st.floats(-3, 3), deviation=st.floats(0.1, 3), seed=st.integers(0, 99))
def test_power_share_is_that_of_the_mean(mean, deviation, seed):
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x - x.mean(dim=(0, 2, 3), keepdim=True)) / x.std(dim=(0, 2, 3), keepdim=True, unbiased=False)
    assert denormalization.mean_power_share(mean + deviation * x) == pytest.approx(mean**2 / (mean**2 + deviation**2))


def test_layer_norm_loses_normalisation_with_depth_and_proxy_norm_keeps_it():
    shares = {}
    for name in ("LN", "LN+PN"):
        torch.manual_seed(0)
        fields = {"architecture": "efficientnet-b0", "drop_path": 0.0, **denormalization.NORMS[name]}
        network = build_model(ModelConfig.model_validate(fields), 10)
        denormalization.randomise_scales_and_shifts(network)
        shares[name] = denormalization.measure_shares(network, torch.randn(16, 3, 32, 32))[-10:]
    assert sum(shares["LN"]) / 10 > 0.2 and sum(shares["LN+PN"]) / 10 < 0.1


def test_the_study_is_written_from_runs_that_are_there(tmp_path, monkeypatch, capsys):
    accuracy = {"G1-GN-Native": 90.0, "G16-GN-Native": 91.0, "G16-GN-Half": 89.0, "G16-LN+PN-Native": 92.0, "G16-LN+PN-Half": 91.5}
    speed = {"G1-GN-Native": 100.0, "G16-GN-Native": 90.0, "G16-GN-Half": 200.0, "G16-LN+PN-Native": 80.0, "G16-LN+PN-Half": 180.0}
    for variant in study.VARIANTS:
        for seed in (1, 2):
            run = study.run_folder(tmp_path / "digits", variant, seed)
            (run / "fine-tune").mkdir(parents=True)
            (run / "summary.json").write_text(json.dumps({"images_per_second": speed[variant], "val_top1": 50.0}))
            (run / "fine-tune" / "summary.json").write_text(json.dumps({"val_top1": accuracy[variant] + seed, "epochs": 2}))
    monkeypatch.setattr(sys, "argv", ["study", "--output", str(tmp_path), "--seeds", "1", "2"])
    study.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| G1-GN-Native | 50.00 | 91.50 ± 0.71 | 100 | ")
    front = [line.split("|")[1].strip() for line in lines if line.endswith("| yes |")]
    assert front == ["G16-GN-Half", "G16-LN+PN-Native", "G16-LN+PN-Half"]
    assert (tmp_path / "digits" / "study.png").stat().st_size > 1000
    config = study.study_config(study_arguments(), "G16-GN-Half", 3, tmp_path)
    assert (config.data.image_size, config.phases[1].data.image_size, config.model.proxy_norm) == (24, 32, False)


def study_arguments():
    import argparse

    return argparse.Namespace(dataset="cifar10", data_path="", epochs=4)


def test_the_study_downloads_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["study", "--dataset", "cifar10", "--data-path", str(tmp_path)])
    with pytest.raises(SystemExit, match="study: no CIFAR-10 in"):
        study.main()
