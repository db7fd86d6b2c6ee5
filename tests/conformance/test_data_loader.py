"""Section 9: DataLoader."""

from __future__ import annotations

import pytest
import torch

import poptorch


def options(iterations=2, accumulation=3, replicas=2):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    return chosen


def dataset(size=50):
    return torch.utils.data.TensorDataset(torch.arange(size), torch.arange(size) * 2)


def test_items_are_combined_batches():
    loader = poptorch.DataLoader(options(), dataset(), batch_size=2)
    assert loader.combinedBatchSize == 2 * 2 * 3 * 2
    assert len(loader) == 2  # drop_last is True
    first, second = next(iter(loader))
    assert torch.equal(first, torch.arange(24)) and torch.equal(second, first * 2)


def test_the_last_batch_may_be_kept():
    loader = poptorch.DataLoader(options(), dataset(), batch_size=2, drop_last=False)
    assert [len(batch[0]) for batch in loader] == [24, 24, 2] and len(loader) == 3


def test_batching_may_be_off():
    loader = poptorch.DataLoader(options(), dataset(), batch_size=None)
    assert loader.combinedBatchSize is None
    assert next(iter(loader))[0].dim() == 0


def test_batch_samplers_are_joined():
    sampler = torch.utils.data.BatchSampler(range(50), 2, drop_last=True)
    loader = poptorch.DataLoader(options(), dataset(), batch_sampler=sampler)
    assert loader.combinedBatchSize == 24
    assert [batch[0].tolist() for batch in loader] == [list(range(24)), list(range(24, 48))]
    kept = poptorch.DataLoader(options(), dataset(), batch_sampler=sampler, drop_last=False)
    assert [len(batch[0]) for batch in kept] == [24, 24, 2] and len(kept) == 3
    with pytest.raises(poptorch.Error, match="batch_sampler"):
        poptorch.DataLoader(options(), dataset(), batch_size=2, batch_sampler=sampler)


def test_workers_load_the_same():
    alone = [batch[0].tolist() for batch in poptorch.DataLoader(options(), dataset(), batch_size=2)]
    helped = [batch[0].tolist() for batch in poptorch.DataLoader(options(), dataset(), batch_size=2, num_workers=2)]
    assert alone == helped


def test_absent_modes_say_so():
    with pytest.raises(NotImplementedError, match="Nearest alternative"):
        poptorch.DataLoader(options(), dataset(), mode=poptorch.DataLoaderMode.Async)
    with pytest.raises(NotImplementedError, match="Nearest alternative"):
        poptorch.AsynchronousDataAccessor(dataset())
