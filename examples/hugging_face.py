"""A Hugging Face model, used directly and through a trainer-like loop with a library's own executor subclass.

Needs transformers (`pip install -r examples/requirements.txt`). The model is small and starts from random weights: nothing is downloaded.
"""

from __future__ import annotations

import copy
from typing import Any, Dict, List

import torch

import poptorch

try:
    import transformers  # pyright: ignore[reportMissingImports]
except ImportError:
    raise SystemExit("this example needs transformers: pip install -r examples/requirements.txt") from None

TOKENS, BATCH, EPOCHS, RATE = 12, 4, 2, 0.05


class Sentences(torch.utils.data.Dataset):
    """Random sentences of different lengths, padded; the label is whether the first token is in the upper half."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        words = torch.randint(1, 60, (TOKENS,), generator=generator)
        length = int(torch.randint(4, TOKENS + 1, (), generator=generator))
        mask = (torch.arange(TOKENS) < length).long()
        return {"input_ids": words * mask, "attention_mask": mask, "labels": (words[0] > 30).long()}


def build_model() -> Any:
    """A BERT of two small layers without dropout, so that two runs can be compared."""
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=TOKENS,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def train_directly(model: Any) -> List[float]:
    """The model as it is: keyword arguments in, its own output class back, the loss found in it."""
    options = poptorch.Options()
    loader = poptorch.DataLoader(options, Sentences(), batch_size=BATCH)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=RATE, use_combined_accum=False)
    training = poptorch.trainingModel(model.train(), options, optimizer)
    losses = []
    for _ in range(EPOCHS):
        for batch in loader:
            output = training(**batch)
            assert output.logits.shape == (BATCH, 2), f"logits of {tuple(output.logits.shape)}"
            losses.append(float(output.loss))
    training.detachFromDevice()
    return losses


class LibraryExecutor(poptorch.PoplarExecutor):
    """What a library derives from PopTorch's executor: it wraps a copy of the user's model and counts its calls."""

    def __init__(self, model: Any, options: poptorch.Options, training: bool, optimizer: Any = None) -> None:
        super().__init__(
            model=copy.copy(model), options=options, training=training, poptorch_version=poptorch.__version__, optimizer=optimizer,
            user_model=model,
        )  # fmt: skip
        self._args_parser = None
        self.num_calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As PopTorch's; counted."""
        self.num_calls += 1
        return super().__call__(*args, **kwargs)


class Trainer:
    """A loop as libraries have it: a schedule, an optimizer given anew after each step, an evaluation after each epoch."""

    def __init__(self, model: Any, options: poptorch.Options) -> None:
        self.model = model
        self.optimizer = poptorch.optim.SGD(model.parameters(), lr=RATE, use_combined_accum=False)
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, 2, EPOCHS * len(Sentences()) // BATCH)
        self.training = LibraryExecutor(model.train(), options, training=True, optimizer=self.optimizer)
        self.options = options

    def train(self) -> List[float]:
        """Losses of all steps."""
        loader = poptorch.DataLoader(self.options, Sentences(), batch_size=BATCH)
        losses = []
        for _ in range(EPOCHS):
            for batch in loader:
                losses.append(float(self.training(**batch)["loss"]))
                self.schedule.step()
                self.training.setOptimizer(self.optimizer)
        assert self.training.num_calls == len(losses)
        self.training.detachFromDevice()
        return losses

    def evaluate(self) -> torch.Tensor:
        """Logits of all sentences, from an executor that sees the trained weights."""
        inference = LibraryExecutor(self.model.eval(), self.options, training=False)
        loader = poptorch.DataLoader(self.options, Sentences(), batch_size=BATCH)
        return torch.cat([inference(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits for b in loader])


def train_plainly(model: Any, is_scheduled: bool) -> List[float]:
    """Losses without PopTorch."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=RATE)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 2, EPOCHS * len(Sentences()) // BATCH) if is_scheduled else None
    losses = []
    for _ in range(EPOCHS):
        for batch in torch.utils.data.DataLoader(Sentences(), batch_size=BATCH):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if schedule is not None:
                schedule.step()
    return losses


def close(ours: Any, theirs: Any) -> bool:
    """To float32's rounding over two layers of attention."""
    return torch.allclose(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=1e-4, atol=1e-5)


def main() -> None:
    """Both ways give plain PyTorch's losses, and the trainer its logits."""
    start = build_model()
    plain = copy.deepcopy(start)
    expected = train_plainly(plain, is_scheduled=False)
    losses = train_directly(copy.deepcopy(start))
    print(f"directly: loss {losses[0]:.4f} -> {losses[-1]:.4f}, plain PyTorch {expected[-1]:.4f}")
    assert close(losses, expected), "losses differ from plain PyTorch"

    plain = copy.deepcopy(start)
    expected = train_plainly(plain, is_scheduled=True)
    trainer = Trainer(copy.deepcopy(start), poptorch.Options())
    losses = trainer.train()
    print(f"trainer:  loss {losses[0]:.4f} -> {losses[-1]:.4f}, plain PyTorch {expected[-1]:.4f}")
    assert close(losses, expected), "losses of the trainer differ from plain PyTorch"
    with torch.no_grad():
        batches = torch.utils.data.DataLoader(Sentences(), batch_size=BATCH)
        logits = torch.cat([plain.eval()(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits for b in batches])
    assert close(trainer.evaluate(), logits), "logits differ from plain PyTorch"


if __name__ == "__main__":
    main()
