"""Sections 9, 18.8 and 18.11: what a DataLoader's batch samplers, modes and processes do in each combination."""

from __future__ import annotations

import collections
import os
import subprocess
import sys

import pytest
import torch

import poptorch

FORK = dict(sharing_strategy=poptorch.SharingStrategy.Fork)  # the other strategies start a fresh Python, which takes seconds
MODES = [poptorch.DataLoaderMode.Sync, poptorch.DataLoaderMode.Async, poptorch.DataLoaderMode.AsyncRebatched]


def options(iterations=1, accumulation=1, replicas=1):
    chosen = poptorch.Options().deviceIterations(iterations).replicationFactor(replicas)
    chosen.Training.gradientAccumulation(accumulation)
    return chosen


def part(number, count):
    """Options of one process of several."""
    chosen = options().randomSeed(7)
    chosen.Distributed.configureProcessId(number, count)
    return chosen


# ---- batch samplers


class Sentences(torch.utils.data.Dataset):
    """Sentence i has i + 1 words."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.full((index + 1,), index)


def pad(samples):
    """One micro batch, padded to its longest sentence; its shape is kept as a row."""
    width = max(len(sample) for sample in samples)
    padded = torch.stack([torch.nn.functional.pad(sample, (0, 10 - len(sample)), value=-1) for sample in samples])
    return padded, torch.tensor([[len(samples), width]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [0, 2])
def test_collate_sees_one_batch_of_the_sampler(mode, workers):
    """A group is two batches: 2 x accumulation 1; the widths are those of single batches."""
    sampler = [[0, 1], [2, 3, 4], [9], [5, 6]]
    loader = poptorch.DataLoader(
        options(2), Sentences(), batch_sampler=sampler, collate_fn=pad, num_workers=workers, mode=mode, async_options=FORK
    )
    items = [(words[:, 0].tolist(), shapes.tolist()) for words, shapes in loader]
    assert items == [([0, 1, 2, 3, 4], [[2, 2], [3, 5]]), ([9, 5, 6], [[1, 10], [2, 7]])]
    assert len(loader) == 2
    loader.terminate()


def test_an_incomplete_group_is_kept_without_drop_last():
    sampler = [[0], [1], [2]]
    kept = poptorch.DataLoader(options(2), torch.arange(5), batch_sampler=sampler, drop_last=False)
    assert [item.tolist() for item in kept] == [[0, 1], [2]] and len(kept) == 2
    dropped = poptorch.DataLoader(options(2), torch.arange(5), batch_sampler=sampler)
    assert [item.tolist() for item in dropped] == [[0, 1]] and len(dropped) == 1
    assert dropped.dataset.tolist() == [0, 1, 2, 3, 4]  # the user's own


def test_batches_that_cannot_be_joined_are_named():
    loader = poptorch.DataLoader(options(2), torch.arange(4), batch_sampler=[[0], [1]], collate_fn=lambda samples: (samples[0], "a word"))
    with pytest.raises(poptorch.Error, match="'a word'.*registerCustomArgParser"):
        next(iter(loader))


# ---- types of a program's own


class Graph:
    def __init__(self, nodes, edges):
        self.nodes, self.edges = nodes, edges


class GraphParser(poptorch.ICustomArgParser):
    def yieldTensors(self, struct):
        yield struct.nodes
        yield struct.edges

    def reconstruct(self, original_structure, tensor_iterator):
        return type(original_structure)(next(tensor_iterator), next(tensor_iterator))


class Graphs(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index


def one_graph(indices):
    values = torch.tensor(indices)
    return {"graph": Graph(values, values * 10), "label": values}


@pytest.fixture
def graphs():
    poptorch.registerCustomArgParser(Graph, GraphParser())
    yield
    poptorch.registerCustomArgParser(Graph, None)


@pytest.mark.parametrize(
    ("mode", "strategy"),
    [(MODES[1], poptorch.SharingStrategy.Fork), (MODES[2], poptorch.SharingStrategy.Fork), (MODES[1], poptorch.SharingStrategy.ForkServer)],
)
def test_registered_types_pass_through_every_mode(graphs, mode, strategy):
    loader = poptorch.DataLoader(
        options(), Graphs(), batch_size=4, drop_last=False, collate_fn=one_graph, mode=mode, async_options=dict(sharing_strategy=strategy)
    )
    items = [(type(i["graph"]), i["graph"].nodes.tolist(), i["graph"].edges.tolist(), i["label"].tolist()) for i in loader]
    assert items == [(Graph, [0, 1, 2, 3], [0, 10, 20, 30], [0, 1, 2, 3]), (Graph, [4, 5], [40, 50], [4, 5])]
    loader.terminate()


def test_registered_types_are_joined_tensor_by_tensor(graphs):
    loader = poptorch.DataLoader(options(3), Graphs(), batch_sampler=[[0], [1, 2], [3]], collate_fn=one_graph)
    (item,) = loader
    assert type(item["graph"]) is Graph and item["graph"].edges.tolist() == [0, 10, 20, 30]


class Tokens(collections.OrderedDict):
    pass


def tokens(samples):
    return Tokens(ids=torch.stack(samples))


def test_dicts_keep_their_class_in_another_process():
    loader = poptorch.DataLoader(
        options(), torch.arange(4), batch_size=2, collate_fn=tokens, mode=poptorch.DataLoaderMode.Async, async_options=FORK
    )
    assert [(type(item), item["ids"].tolist()) for item in loader] == [(Tokens, [0, 1]), (Tokens, [2, 3])]
    loader.terminate()


# ---- lengths


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(torch.arange(10))


class LongStream(Stream):
    def __len__(self):
        return 10


@pytest.mark.parametrize(("drop_last", "expected"), [(True, 2), (False, 3)])
@pytest.mark.parametrize("data", [torch.arange(10), LongStream()])
def test_the_length_in_rebatched_mode_is_of_the_dataset(data, drop_last, expected):
    """10 samples in combined batches of 4, whatever the workers load."""
    loader = poptorch.DataLoader(
        options(2), data, batch_size=2, drop_last=drop_last, mode=MODES[2], rebatched_worker_size=3, async_options=FORK
    )
    assert len(loader) == expected == len(list(loader))
    loader.terminate()


def test_a_share_counts_alone():
    loader = poptorch.DataLoader(part(0, 2), torch.arange(10), batch_size=2, mode=MODES[2], rebatched_worker_size=1, async_options=FORK)
    assert len(loader) == 2  # 4 of 10 samples: the other process has as many whole batches
    loader.terminate()


def test_a_stream_without_a_length_has_none():
    loader = poptorch.DataLoader(options(2), Stream(), batch_size=2, mode=MODES[2], async_options=FORK)
    with pytest.raises(TypeError, match="has no len"):
        len(loader)
    loader.terminate()


# ---- modes


@pytest.mark.parametrize("mode", MODES)
def test_settings_of_other_modes_are_ignored(mode):
    """Programs keep them while they switch the mode; rebatched_worker_size 9 would be refused in AsyncRebatched mode."""
    size = 3 if mode == poptorch.DataLoaderMode.AsyncRebatched else 9
    loader = poptorch.DataLoader(options(), torch.arange(8), batch_size=4, mode=mode, async_options=FORK, rebatched_worker_size=size)
    assert [item.tolist() for item in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    loader.terminate()


SHUFFLED = [
    *((mode, workers, 2) for mode in MODES[1:] for workers in (0, 1)),
    *(pytest.param(mode, 2, strategy, marks=pytest.mark.slow) for mode in MODES[1:] for strategy in (0, 3)),
]


@pytest.mark.parametrize(("mode", "workers", "strategy"), SHUFFLED)
def test_shuffling_over_processes_in_another_process(mode, workers, strategy):
    """Each mode gives the samples of Sync mode, over several epochs."""
    settings = dict(batch_size=2, shuffle=True)
    sharing = dict(sharing_strategy=poptorch.SharingStrategy(strategy))
    plain = poptorch.DataLoader(part(1, 2), torch.arange(11), **settings)
    ahead = poptorch.DataLoader(part(1, 2), torch.arange(11), num_workers=workers, mode=mode, async_options=sharing, **settings)
    for _ in range(3):
        assert [item.tolist() for item in ahead] == [item.tolist() for item in plain]
    ahead.terminate()


def test_a_distributed_shuffled_loader_starts_in_a_fresh_process():
    loader = poptorch.DataLoader(part(1, 2), torch.arange(12), batch_size=3, shuffle=True, mode=poptorch.DataLoaderMode.Async)
    plain = poptorch.DataLoader(part(1, 2), torch.arange(12), batch_size=3, shuffle=True)
    assert [item.tolist() for item in loader] == [item.tolist() for item in plain]
    loader.terminate()


def test_generators_of_a_program_travel_to_a_fresh_process():
    """They are tensors inside, which must outlive the journey."""
    plain, ahead = (
        poptorch.DataLoader(options(), torch.arange(8), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5), mode=mode)
        for mode in MODES[:2]
    )
    assert [item.tolist() for item in ahead] == [item.tolist() for item in plain]
    ahead.terminate()


# ---- beginning again


@pytest.mark.parametrize("settings", [{}, dict(load_indefinitely=False), dict(early_preload=True), dict(buffer_size=1)])
@pytest.mark.parametrize("strategy", [poptorch.SharingStrategy.Fork, poptorch.SharingStrategy.ForkServer])
def test_iterating_may_begin_at_any_moment(settings, strategy):
    """Also before the process is up, and after any number of items."""
    loader = poptorch.DataLoader(
        options(),
        torch.arange(8),
        batch_size=2,
        mode=poptorch.DataLoaderMode.Async,
        async_options=dict(sharing_strategy=strategy, **settings),
    )
    for _ in range(5):
        iter(loader)
    for count in (0, 1, 4, 2, 3):
        iterator = iter(loader)
        assert [next(iterator).tolist() for _ in range(count)] == [[0, 1], [2, 3], [4, 5], [6, 7]][:count]
    assert [item.tolist() for item in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    loader.terminate()


# ---- programs


def run_program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text("import ipu_model\n" * ("ipu_model" in sys.modules) + text)
    paths = os.pathsep.join([path for path in sys.path if path])
    return subprocess.run([sys.executable, str(path)], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120)


UNGUARDED = """
import torch, poptorch
loader = poptorch.DataLoader(poptorch.Options(), torch.arange(4), mode=poptorch.DataLoaderMode.Async{more})
print([int(item) for item in loader])
"""


def test_a_missing_guard_is_named(tmp_path):
    done = run_program(tmp_path, UNGUARDED.format(more=""))
    assert done.returncode == 1 and "[0, 1, 2, 3]" not in done.stdout
    assert 'program.py has no `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert "bootstrapping" not in done.stderr
    forked = run_program(tmp_path, UNGUARDED.format(more=", async_options=dict(sharing_strategy=poptorch.SharingStrategy.Fork)"))
    assert forked.stdout == "[0, 1, 2, 3]\n"
