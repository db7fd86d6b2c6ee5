"""Inference with device iterations: compiled once, found in the executable cache, saved and loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import poptorch

ITERATIONS, MICRO_BATCH = 8, 4


class Classifier(nn.Module):
    """A small convolutional classifier; returns probabilities and the class."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )

    def forward(self, images: torch.Tensor) -> dict:
        """Probabilities and likeliest class of each image."""
        probabilities = self.layers(images).softmax(1)
        return {"probabilities": probabilities, "class": probabilities.argmax(1)}


def wrap(model: Classifier, cache: Path) -> poptorch.PoplarExecutor:
    """The model with device iterations and an executable cache."""
    options = poptorch.Options().deviceIterations(ITERATIONS).enableExecutableCaching(str(cache))
    return poptorch.inferenceModel(model.eval(), options)


def main() -> None:
    """Every way to get the compiled model gives what plain PyTorch gives."""
    torch.manual_seed(0)
    model = Classifier()
    images = torch.randn(ITERATIONS * MICRO_BATCH, 3, 16, 16)
    with torch.no_grad():
        expected = model.eval()(images)

    with tempfile.TemporaryDirectory() as folder:
        cache, saved = Path(folder) / "cache", str(Path(folder) / "classifier.poptorch")
        compiled = wrap(model, cache)
        results = [("compiled", compiled(images)), ("from the cache", wrap(model, cache)(images))]
        assert len(list(cache.iterdir())) == 1, "equal graphs share one file"
        compiled.save(saved)
        loaded = poptorch.load(saved)
        results.append(("from a file", loaded(images)))

    for name, result in results:
        torch.testing.assert_close(result["probabilities"], expected["probabilities"])
        assert result["class"].dtype == torch.int32 and torch.equal(result["class"].long(), expected["class"])
        print(f"{name:15} {len(result['class'])} images in one call, as plain PyTorch")
    low, high, mean = loaded.getLatency()
    print(f"latency of a micro batch of {MICRO_BATCH}: {1000 * mean:.2f} ms ({1000 * low:.2f} to {1000 * high:.2f})")


if __name__ == "__main__":
    main()
