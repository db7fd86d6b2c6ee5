"""A recurrent decoder whose loop and stopping rule run on the device, and the same loop in Python."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn

import poptorch

STEPS, WIDTH, STOP = 12, 8, 0


class Decoder(nn.Module):
    """Decodes greedily from a start state; once the stop token came, only it is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, WIDTH)
        self.cell = nn.GRUCell(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 6)

    def step(self, token: torch.Tensor, state: torch.Tensor, tokens: torch.Tensor, position: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        """One token: (token, state, all tokens so far, position)."""
        state = self.cell(self.embedding(token), state)
        following = torch.where(token == STOP, token, self.head(state).argmax(1).to(token.dtype))
        return following, state, poptorch.dynamic_update(tokens, following.unsqueeze(0), 0, position, 1), position + 1

    def forward(self, token: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Tokens of all steps, [steps, batch]; reversed where the first sample stopped."""
        tokens = torch.zeros(STEPS, token.shape[0], dtype=token.dtype, device=token.device)
        position = torch.zeros(1, dtype=torch.int32, device=token.device)
        _, _, tokens, _ = poptorch.for_loop(STEPS, self.step, [token, state, tokens, position])
        has_stopped = (tokens[-1, :1] == STOP).reshape(())
        (tokens,) = poptorch.cond(has_stopped, lambda t: t.flip(0), [tokens], lambda t: t * 1, [tokens])
        return tokens


def main() -> None:
    """Outside of an executor the same functions are plain Python, so the model is its own reference."""
    torch.manual_seed(0)
    model = Decoder().eval()
    token, state = torch.tensor([1, 2, 3, 4], dtype=torch.int32), torch.randn(4, WIDTH)
    with torch.no_grad():
        expected = model(token, state)
    result = poptorch.inferenceModel(model)(token, state)
    assert torch.equal(result, expected), "the device's loop differs from Python's"
    print(f"{STEPS} steps on the device, as in Python:\n{result.t().tolist()}")


if __name__ == "__main__":
    main()
