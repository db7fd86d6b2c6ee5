"""Section 9: DataLoader and AsynchronousDataAccessor."""

from __future__ import annotations

import gc
import time

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


# ---- several processes


def shares(count, size, batch_size, epochs=1, **settings):
    """Samples that each process gets, by epoch."""
    result = []
    for number in range(count):
        chosen = poptorch.Options().randomSeed(7)
        chosen.Distributed.configureProcessId(number, count)
        loader = poptorch.DataLoader(chosen, torch.arange(size), batch_size=batch_size, **settings)
        result.append([[int(value) for item in loader for value in item] for _ in range(epochs)])
    return result


def test_processes_get_contiguous_shares_and_left_over_samples_take_turns():
    assert shares(2, 11, 2, epochs=3) == [
        [[0, 1, 2, 3], [3, 4, 5, 6], [0, 1, 2, 3]],
        [[4, 5, 6, 7], [7, 8, 9, 10], [4, 5, 6, 7]],
    ]
    assert shares(3, 11, 2, drop_last=False) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9, 10]]]


def test_processes_shuffle_alike_and_anew():
    both = shares(2, 12, 3, epochs=2, shuffle=True)
    for epoch in range(2):
        assert sorted(both[0][epoch] + both[1][epoch]) == list(range(12))
    assert both[0][0] != both[0][1] and both[0][0] != sorted(both[0][0])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(torch.arange(4))


def test_what_cannot_be_shared_out():
    chosen = poptorch.Options()
    chosen.Distributed.configureProcessId(0, 2)
    for settings in (dict(dataset=Stream()), dict(dataset=dataset(), shuffle=True), dict(dataset=dataset(), batch_size=None)):
        with pytest.raises(AssertionError):
            poptorch.DataLoader(chosen, **settings)
    sampler = torch.utils.data.BatchSampler(range(50), 2, drop_last=True)
    with pytest.raises(poptorch.Error, match="batch_sampler"):
        poptorch.DataLoader(chosen, dataset(), batch_sampler=sampler)
    loader = poptorch.DataLoader(chosen, Stream(), auto_distributed_partitioning=False, batch_size=2)
    assert [item.tolist() for item in loader] == [[0, 1], [2, 3]]


# ---- loading ahead

FORK = dict(sharing_strategy=poptorch.SharingStrategy.Fork)  # the other strategies start a fresh Python, which takes seconds
ASYNC = dict(mode=poptorch.DataLoaderMode.Async, async_options=FORK)


class Items(torch.utils.data.Dataset):
    """Nested items; with `fails`, element 13 cannot be loaded."""

    def __init__(self, size=20, fails=False):
        self.size, self.fails = size, fails

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if self.fails and index == 13:
            raise KeyError("no such element")
        return {"x": torch.full((2,), float(index)), "y": (torch.tensor(index), torch.tensor([1.5]))}


@pytest.mark.parametrize("strategy", [poptorch.SharingStrategy.Fork, poptorch.SharingStrategy.ForkServer])
def test_loading_ahead_gives_the_same_items(strategy):
    plain = poptorch.DataLoader(options(1, 1, 1), Items(), batch_size=4)
    ahead = poptorch.DataLoader(
        options(1, 1, 1), Items(), batch_size=4, mode=poptorch.DataLoaderMode.Async, async_options=dict(sharing_strategy=strategy)
    )
    assert len(ahead) == len(plain) == 5
    for _ in range(2):
        for expected, item in zip(plain, ahead):
            assert isinstance(item["y"], list)
            assert torch.equal(item["x"], expected["x"]) and torch.equal(item["y"][0], expected["y"][0])
    ahead.terminate()


def test_an_epoch_left_early_begins_anew():
    loader = poptorch.DataLoader(options(1, 1, 1), Items(), batch_size=4, **ASYNC)
    for _ in range(3):
        assert next(iter(loader))["y"][0].tolist() == [0, 1, 2, 3]
    assert [item["y"][0][0].item() for item in loader] == [0, 4, 8, 12, 16]


def test_buffers_are_a_ring():
    chosen = dict(buffer_size=2, **FORK)
    loader = poptorch.DataLoader(options(1, 1, 1), Items(), batch_size=4, mode=poptorch.DataLoaderMode.Async, async_options=chosen)
    held = [item["x"] for item in loader]
    assert len({tensor.data_ptr() for tensor in held}) == 2


@pytest.mark.parametrize(("drop_last", "batches"), [(True, [12]), (False, [12, 8])])
def test_rebatching_loses_nothing_for_each_worker(drop_last, batches):
    """2 workers load 5 at a time: 20 samples in combined batches of 12."""
    loader = poptorch.DataLoader(
        options(2, 3, 1), Items(), batch_size=2, num_workers=2, drop_last=drop_last, mode=poptorch.DataLoaderMode.AsyncRebatched,
        rebatched_worker_size=5, async_options=FORK,
    )  # fmt: skip
    items = [item["y"][0].clone() for item in loader]
    assert [len(item) for item in items] == batches and len(loader) == len(batches)
    assert torch.cat(items).tolist() == list(range(sum(batches)))
    loader.terminate()


def test_settings_of_asynchronous_loading_are_checked():
    with pytest.raises(AssertionError, match="rebatched_worker_size"):
        poptorch.DataLoader(options(1, 1, 1), Items(), batch_size=4, mode=poptorch.DataLoaderMode.AsyncRebatched, rebatched_worker_size=5)
    with pytest.raises(AssertionError, match="rebatched_size"):
        poptorch.DataLoader(options(1, 1, 1), Items(), mode=poptorch.DataLoaderMode.Async, async_options=dict(rebatched_size=3))
    with pytest.raises(AssertionError):
        poptorch.AsynchronousDataAccessor(poptorch.DataLoader(options(1, 1, 1), Items(), batch_size=3, drop_last=False))
    with pytest.raises(AssertionError):
        poptorch.AsynchronousDataAccessor(Items(), rebatched_size=1)
    loader = poptorch.DataLoader(options(1, 1, 1), Items(), **ASYNC)
    with pytest.raises(poptorch.Error, match="accessor"):
        poptorch.AsynchronousDataAccessor(loader)


def test_any_iterable_can_be_loaded_ahead():
    accessor = poptorch.AsynchronousDataAccessor([torch.tensor([i]) for i in range(5)], load_indefinitely=False, early_preload=True, **FORK)
    assert len(accessor) == 5
    for _ in range(2):
        assert [item.item() for item in accessor] == list(range(5))
    accessor.terminate()
    with pytest.raises(poptorch.Error):
        next(iter(accessor))


def test_a_failing_dataset_is_an_error():
    loader = poptorch.DataLoader(options(1, 1, 1), Items(fails=True), batch_size=4, **ASYNC)
    with pytest.raises(poptorch.Error, match="worker thread failed to start.*no such element"):
        for _ in loader:
            pass


def test_a_loader_that_is_dropped_stops_its_process():
    loader = poptorch.DataLoader(options(1, 1, 1), Items(), **ASYNC)
    next(iter(loader))
    process = loader._accessor._process
    del loader
    gc.collect()
    deadline = time.time() + 10
    while process.is_alive() and time.time() < deadline:
        time.sleep(0.05)
    assert not process.is_alive()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 32 worker processes")
@pytest.mark.parametrize("mode", [poptorch.DataLoaderMode.Sync, poptorch.DataLoaderMode.AsyncRebatched])
def test_32_workers_neither_hang_nor_stay(mode):
    settings = {} if mode == poptorch.DataLoaderMode.Sync else dict(rebatched_worker_size=2, async_options=FORK)
    loader = poptorch.DataLoader(options(2, 3, 1), Items(200), batch_size=2, num_workers=32, mode=mode, **settings)
    assert sum(len(item["x"]) for item in loader) == 192
    loader.terminate()
