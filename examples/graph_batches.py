"""A graph network whose batches are objects: a registered parser takes them apart for the device, in the loader and in forward."""

from __future__ import annotations

import copy
from typing import Any, Iterator, List

import torch
from torch import nn

import poptorch

NODES, EDGES, FEATURES, GRAPHS_PER_BATCH, EPOCHS = 12, 24, 8, 4, 3


class GraphBatch:
    """Several graphs as one: node features [N, F], edges [2, E], the graph of each node [N], targets [G]."""

    def __init__(self, nodes: torch.Tensor, edges: torch.Tensor, graph: torch.Tensor, target: torch.Tensor) -> None:
        self.nodes, self.edges, self.graph, self.target = nodes, edges, graph, target


class GraphBatchParser(poptorch.ICustomArgParser):
    """The tensors of a GraphBatch, in a fixed order."""

    def yieldTensors(self, struct: GraphBatch) -> Iterator[torch.Tensor]:
        """Take a batch apart."""
        yield from (struct.nodes, struct.edges, struct.graph, struct.target)

    def reconstruct(self, original_structure: GraphBatch, tensor_iterator: Iterator[torch.Tensor]) -> GraphBatch:
        """Put a batch together."""
        return type(original_structure)(*[next(tensor_iterator) for _ in range(4)])


class Graphs(torch.utils.data.Dataset):
    """Random graphs of one size; the target is the mean of the features over all edges' first ends."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        nodes = torch.randn(NODES, FEATURES, generator=generator)
        edges = torch.randint(NODES, (2, EDGES), generator=generator)
        return nodes, edges, nodes[edges[0]].mean()


def collate(graphs: List[Any]) -> GraphBatch:
    """Graphs side by side: the edges of graph i are shifted by i x NODES."""
    nodes, edges, targets = zip(*graphs)
    shifted = torch.cat([edge + index * NODES for index, edge in enumerate(edges)], dim=1)
    graph = torch.arange(len(graphs)).repeat_interleave(NODES)
    return GraphBatch(torch.cat(nodes), shifted, graph, torch.stack(targets))


class Network(nn.Module):
    """Two rounds of messages along the edges, then one number for each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(FEATURES, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Mean squared error of a batch."""
        state = self.first(batch.nodes)
        messages = torch.zeros_like(state).index_add(0, batch.edges[1], torch.relu(state)[batch.edges[0]])
        state = torch.relu(self.second(messages))
        pooled = torch.zeros(GRAPHS_PER_BATCH, 16, device=state.device).index_add(0, batch.graph, state)
        loss = (self.out(pooled).squeeze(1) - batch.target).square().mean()
        return poptorch.identity_loss(loss, reduction="none")


def train(model: Network) -> List[float]:
    """Losses through PopTorch; another process loads the batches."""
    options = poptorch.Options()
    sampler = torch.utils.data.BatchSampler(range(len(Graphs())), GRAPHS_PER_BATCH, drop_last=True)
    loader = poptorch.DataLoader(options, Graphs(), batch_sampler=sampler, collate_fn=collate, mode=poptorch.DataLoaderMode.Async)
    training = poptorch.trainingModel(model, options, poptorch.optim.SGD(model.parameters(), lr=0.02, use_combined_accum=False))
    losses = [float(training(batch)) for _ in range(EPOCHS) for batch in loader]
    loader.terminate()
    training.detachFromDevice()
    return losses


def train_plainly(model: Network) -> List[float]:
    """Losses without PopTorch."""
    loader = torch.utils.data.DataLoader(Graphs(), batch_size=GRAPHS_PER_BATCH, collate_fn=collate)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            loss = model(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def main() -> None:
    """The same losses and weights, to float32's rounding."""
    poptorch.registerCustomArgParser(GraphBatch, GraphBatchParser())
    torch.manual_seed(0)
    plain = Network()
    model = copy.deepcopy(plain)
    expected, losses = train_plainly(plain), train(model)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} updates, plain PyTorch {expected[-1]:.4f}")
    assert torch.allclose(torch.tensor(losses), torch.tensor(expected), rtol=1e-4, atol=1e-6), "losses differ from plain PyTorch"
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6), "weights differ from plain PyTorch"


if __name__ == "__main__":
    main()
