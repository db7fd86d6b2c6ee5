"""How normalised activations stay through a deep G16 network: `python -m benchmarks.denormalization`.

Layer norm makes the activations of an image normal over all channels together, so that single channels can drift away from zero mean and,
with depth, become constant: the collapse that Proxy Norm prevents (arXiv 2106.03743). Measured, layer by layer: the share of the power of
the activations that lies in the mean of each channel, sum_c mean_c^2 / sum_c mean(x_c^2), over images and positions. 0: all channels have
mean zero. 1: all channels are constant.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from torch import nn
from torch.nn import functional as F

import ipu_model  # noqa: F401
from config import ModelConfig
from datasets.arrays import load_digits
from models.factory import build_model
from models.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN, colour_constant
from models.proxy_norm import ProxyNormAct

NORMS: Dict[str, Dict[str, Any]] = {
    "BN": {"norm": "batch"},
    "GN": {"norm": "group"},
    "LN": {"norm": "layer"},
    "LN+PN": {"norm": "layer", "proxy_norm": True},
}
COLOURS = {"BN": "#4477aa", "GN": "#ccbb44", "LN": "#ee6677", "LN+PN": "#228833"}
SPREAD = 0.2  # of random scales around 1 and shifts around 0, as in the paper's power plots
Shares = Dict[Tuple[str, str], List[float]]


def main() -> None:
    """Measure, write the table and the figure, and say what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="efficientnet-b0", help="network; its G16 form is measured")
    parser.add_argument("--image-size", type=int, default=64, help="pixels on a side")
    parser.add_argument("--images", type=int, default=256, help="digits that are measured over")
    parser.add_argument("--steps", type=int, default=60, help="weight updates of the training, 32 images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/denormalization", help="folder of the table and the figure")
    arguments = parser.parse_args()
    images, labels = load_images(arguments.image_size)
    shares: Shares = {}
    for name, fields in NORMS.items():
        torch.manual_seed(arguments.seed)
        network = build_model(ModelConfig.model_validate({"architecture": arguments.architecture, "drop_path": 0.0, **fields}), 10)
        randomise_scales_and_shifts(network)
        shares["initial", name] = measure_shares(network, images[: arguments.images])
        train(network, images, labels, arguments.steps)
        shares["trained", name] = measure_shares(network, images[: arguments.images])
        means = {state: sum(shares[state, name]) / len(shares[state, name]) for state in ("initial", "trained")}
        deepest = {state: shares[state, name][-1] for state in ("initial", "trained")}
        print(
            f"{name:6} mean over layers: initial {means['initial']:.3f}, trained {means['trained']:.3f}; last layer: initial "
            f"{deepest['initial']:.3f}, trained {deepest['trained']:.3f}",
            flush=True,
        )
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "denormalization.csv", shares)
    draw(folder / "denormalization.png", shares, f"{arguments.architecture} G16, digits at {arguments.image_size} pixels")
    print(sentence(shares))
    print(f"written to {folder}/denormalization.csv and .png")


def load_images(size: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """All training digits, normalised, and their labels."""
    digits = load_digits(is_training=True)
    mean, deviation = colour_constant(IMAGENET_MEAN), colour_constant(IMAGENET_DEVIATION)
    pixels = digits.images.float().expand(-1, 3, -1, -1)
    pixels = F.interpolate((pixels - mean) / deviation, size=(size, size), mode="bilinear", align_corners=False)
    return pixels, digits.labels.long()


def randomise_scales_and_shifts(network: nn.Module) -> None:
    """Scales of norms from N(1, 0.2^2), shifts from N(0, 0.2^2): what training makes of them, roughly."""
    for module in network.modules():
        if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d, ProxyNormAct)):
            nn.init.normal_(module.weight, 1.0, SPREAD)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, SPREAD)


def measure_shares(network: nn.Module, images: torch.Tensor) -> List[float]:
    """The share of power in the channels' means where each norm begins to normalise over them: its output before scale and shift.

    Batch norm is measured with the statistics of these images.
    """
    shares: List[float] = []

    def note(module: nn.Module, inputs: Tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        shares.append(mean_power_share(normalised(module, inputs[0])))

    norms = [module for module in network.modules() if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d, ProxyNormAct))]
    handles = [module.register_forward_hook(note) for module in norms]
    with torch.no_grad():
        network.train()(images)
    for handle in handles:
        handle.remove()
    return shares


def normalised(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A norm's output without its scale and shift."""
    if isinstance(module, nn.BatchNorm2d):
        return F.batch_norm(x, None, None, training=True, eps=module.eps)
    epsilon = module.norm_epsilon if isinstance(module, ProxyNormAct) else module.eps
    return F.group_norm(x, module.num_groups, eps=epsilon)  # type: ignore[arg-type]


def mean_power_share(x: torch.Tensor) -> float:
    """sum_c mean_c^2 / sum_c mean(x_c^2) of [N, C, H, W], over N, H and W."""
    power = (x.double() ** 2).mean(dim=(0, 2, 3))
    mean = x.double().mean(dim=(0, 2, 3))
    return float((mean**2).sum() / power.sum())


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """A few weight updates on digits, enough for the scales and shifts to become those of a network that has learned."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    network.train()
    for step in range(steps):
        chosen = torch.randint(len(images), (32,))
        rate = 0.5 * (1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * rate
        optimizer.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()


def write_table(path: Path, shares: Shares) -> None:
    """A row for each state, norm and layer."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("state", "norm", "layer", "share"))
        for (state, name), values in shares.items():
            writer.writerows((state, name, layer, share) for layer, share in enumerate(values))


def draw(path: Path, shares: Shares, title: str) -> None:
    """The share over depth, at initialisation and after training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    titles = {"initial": "at initialisation, random scales and shifts", "trained": "after training on digits"}
    for axes, (state, label) in zip(figure.subplots(1, 2, sharey=True), titles.items()):
        for name in NORMS:
            axes.plot(shares[state, name], "o-", ms=3, color=COLOURS[name], label=name)
        axes.set(xlabel="norm, from the input to the output", title=label, ylim=(-0.02, 1))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of power in the channels' means")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def sentence(shares: Shares) -> str:
    """What the figure shows, in one sentence."""
    ends = {name: sum(shares["initial", name][-10:]) / 10 for name in NORMS}
    return (
        f"Over the last ten norms at initialisation, {100 * ends['LN']:.0f} % of the power of layer-normalised activations lies in channel "
        f"means ({100 * ends['GN']:.0f} % with group norm), {100 * ends['LN+PN']:.0f} % with Proxy Norm, and {100 * ends['BN']:.0f} % with "
        "batch norm."
    )


if __name__ == "__main__":
    main()
