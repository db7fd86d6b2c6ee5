"""The second phase: its config, frozen layers, test sizes, averages of checkpoints."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import poptorch
from config import AveragingConfig, load_preset
from models.architectures import SIZES, check_image_size, nearest_good_sizes, total_stride
from models.factory import build_model
from models.freezing import train_only
from training.averaging import WeightAverage
from training.errors import CheckpointError
from training.run.averages import average_checkpoints
from training.run.checkpoint import save_checkpoint
from training.run.size_sweep import find_best_size, pareto_front, sweep_sizes, write_sweep

HALF = "efficientnet-b0-g16-lnpn-half-16ipu"

# ---- the config


def test_the_papers_fine_tuning():
    """The code of arXiv 2106.03640: 2 epochs, the top, 2^-11 x 512 = 0.25, 16 replicas on one IPU each, cosine; decay 1 - 2^-14 x 512."""
    phase = load_preset(HALF, {}).phases[1]
    assert (phase.data.image_size, phase.validation_image_size, phase.data.preprocessing) == (224, 224, "validation")
    assert (phase.schedule.epochs, phase.schedule.schedule, phase.schedule.warmup_epochs) == (2, "cosine", 5.0)
    assert (phase.batch.images_per_update, phase.batch.replicas, phase.ipu.stages) == (512, 16, 1)
    assert (phase.learning_rate, phase.rmsprop_decay) == (0.25, 0.96875)
    assert phase.model.trainable_layers == ("conv_head", "bn2", "classifier")
    assert phase.averaging.averaging == "none" and phase.augmentation == load_preset(HALF, {}).augmentation


@given(training=st.integers(32, 400), size=st.integers(32, 600), period=st.sampled_from([8, 32]))
def test_good_sizes_surround_the_size_and_fall_on_the_same_grid(training, size, period):
    below, above = nearest_good_sizes(training, size, period)
    assert below <= size < above == below + period
    assert below % period == above % period == training % period


def test_the_papers_sizes_are_good():
    """Section 1.4: native and half sizes of B0 to B5 agree modulo 32."""
    for number, (native, half) in enumerate(((224, 160), (240, 176), (260, 196), (300, 204), (380, 252), (456, 328))):
        assert native in nearest_good_sizes(half, native, total_stride(f"efficientnet-b{number}"))
    assert {name: total_stride(name) for name in SIZES if name != "efficientnet-cifar"} == {f"efficientnet-b{n}": 32 for n in range(8)}
    assert total_stride("efficientnet-cifar") == 8


def test_images_below_the_stride_are_refused():
    check_image_size("efficientnet-b0", 32)
    with pytest.raises(ValueError, match="image size 31 is too small for efficientnet-b0, which reduces it 32-fold: at least 32"):
        check_image_size("efficientnet-b0", 31)


# ---- frozen layers


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 3))

    def forward(self, x):
        return poptorch.identity_loss(self.network(x).square().mean(), "mean")


def test_frozen_layers_cost_neither_gradients_nor_randomness():
    torch.manual_seed(0)
    model = TwoLayers().train()
    train_only(model.network, ["3", "4"])
    before = [parameter.clone() for parameter in model.network[0].parameters()]
    optimizer = poptorch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    executor = poptorch.trainingModel(model, poptorch.Options(), optimizer)
    executor(torch.randn(2, 3, 9, 9))
    graph = executor._executable.captured.graph.body.graph
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("convolution.default" in name for name in names) == 3
    assert sum("convolution_backward" in name for name in names) == 1  # of the last layer, towards its weights alone
    assert sum("bernoulli" in name or "dropout" in name for name in names) == 1  # the frozen one is in evaluation mode
    (backward,) = [node for node in graph.nodes if "convolution_backward" in str(node.target)]
    assert backward.args[-1] == [False, True, True]  # no gradient of its input
    executor.copyWeightsToHost()
    assert all(torch.equal(a, b) for a, b in zip(before, model.network[0].parameters()))
    assert len(optimizer.state_dict()["ipu_state"]) == 2  # one convolution's weight and bias


def test_a_layer_that_does_not_exist():
    network = build_model(load_preset("tiny", {}).model, 10)
    with pytest.raises(ValueError, match="trainable layer 'conv_hed' does not exist; did you mean 'conv_head'.; paths: .*blocks.6"):
        train_only(network, ["classifier", "conv_hed"])


# ---- sizes


def accuracies(**by_size):
    values = {int(name[1:]): value for name, value in by_size.items()}
    return lambda size: {"top1": values[size], "top5": 0.0, "loss": 0.0, "images": 1, "images_per_second": 1000 / size}


def test_the_search_for_the_best_size_stops_after_two_that_are_no_better():
    rows = find_best_size(160, 32, accuracies(s160=1, s192=3, s224=2, s256=4, s288=4, s320=3, s352=9))
    assert [row["image_size"] for row in rows] == [160, 192, 224, 256, 288, 320]
    assert [row["image_size"] for row in rows if row["is_best"]] == [256]


def test_a_sweep_is_written(tmp_path):
    rows = sweep_sizes([16, 24, 32], accuracies(s16=50.0, s24=40.0, s32=60.0))
    assert [row["is_on_front"] for row in rows] == [1, 0, 1]
    lines = write_sweep(tmp_path / "new", rows, "x")
    assert lines[-2] == "best size   32 pixels, top-1 60.00 %"
    assert (tmp_path / "new" / "image-sizes.csv").read_text().count("\n") == 4
    assert (tmp_path / "new" / "image-sizes.png").stat().st_size > 1000


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points):
    rows = [{"images_per_second": speed, "top1": top1} for speed, top1 in points]
    front = pareto_front(rows)
    for index, (speed, top1) in enumerate(points):
        beaten = any(s >= speed and t >= top1 and (s, t) != (speed, top1) for s, t in points)
        assert (index in front) == (not beaten)


# ---- averages of checkpoints


def write_epochs(folder, weights, averaging=None, epochs=None):
    config = {"averaging": {**AveragingConfig().model_dump(), **(averaging or {})}, "schedule": {"epochs": epochs or len(weights)}}
    for epoch, values in enumerate(weights, start=1):
        payload = {"config": config, "model": values, "position": {"epoch": epoch}}
        save_checkpoint(folder / "checkpoints" / f"epoch-{epoch:04d}.pt", payload)


@pytest.mark.parametrize("kind", ["exponential", "mean"])
def test_offline_averages_are_those_of_training(tmp_path, kind):
    torch.manual_seed(0)
    weights = [{"w": torch.randn(5), "half": torch.randn(3).half(), "count": torch.tensor(n)} for n in range(6)]
    fields = {"averaging_decay": 0.9, "averaging_last": 4}
    write_epochs(tmp_path, weights, fields)
    during = WeightAverage(AveragingConfig.model_validate({"averaging": kind, **fields}), epochs=6)
    for epoch, values in enumerate(weights, start=1):
        during.update(values, epoch)
    _, average = average_checkpoints(tmp_path, kind)
    assert all(torch.equal(average[name], during.weights[name]) for name in average)


def test_epochs_without_a_checkpoint_count_in_the_decay(tmp_path):
    write_epochs(tmp_path, [{"w": torch.tensor([4.0])}, {"w": torch.tensor([9.0])}, {"w": torch.tensor([0.0])}], {"averaging_decay": 0.5})
    (tmp_path / "checkpoints" / "epoch-0002.pt").unlink()
    assert average_checkpoints(tmp_path, "exponential")[1]["w"].item() == 4.0 * 0.5**2


def test_what_cannot_be_averaged(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoints/epoch-.*--checkpoint-every-epochs 1"):
        average_checkpoints(tmp_path, "mean")
    write_epochs(tmp_path, [{"w": torch.zeros(3)}, {"w": torch.zeros(4)}])
    with pytest.raises(CheckpointError, match="epoch-0001.pt and .*epoch-0002.pt are of different models"):
        average_checkpoints(tmp_path, "exponential")
    write_epochs(tmp_path, [{"w": torch.zeros(3)}] * 2, {"averaging_last": 2}, epochs=9)
    with pytest.raises(CheckpointError, match="no checkpoint of the epochs from 8 on"):
        average_checkpoints(tmp_path, "mean")
