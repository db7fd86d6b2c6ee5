"""Sections 8.2 to 8.4: functions and scopes that leave values as they are, point clouds, decoding, registered operators."""

from __future__ import annotations

import pytest
import torch
from shared_models import run_function as run
from torch import nn
from torch.nn import functional as F

import poptorch

# ---- annotations


def test_annotations_return_what_they_get():
    x = torch.ones(2, 2)
    assert poptorch.recomputationCheckpoint(x) is x
    assert poptorch.recomputationCheckpoint(x, x) == (x, x)
    assert poptorch.recomputationCheckpoint([x, x]) == [x, x]

    def forward(x):
        with poptorch.NameScope("scope"), poptorch.Attribute(__outline={"layer": "embedding"}):
            x = poptorch.nop(poptorch.recomputationCheckpoint(x))
        x = poptorch.serializedMatMul(x, x, poptorch.MatMulSerializationMode.ReducingDim, factor=2)
        return poptorch.set_available_memory(x, 0.3)

    assert torch.equal(run(forward, x), x @ x)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: poptorch.recomputationCheckpoint(3), ValueError),
        (lambda: poptorch.nop(3), poptorch.Error),
        (lambda: poptorch.set_available_memory(3, 0.1), poptorch.Error),
        (lambda: poptorch.ipu_print_tensor(3), poptorch.Error),
        (lambda: poptorch.NameScope(3), AssertionError),
        (lambda: poptorch.serializedMatMul(torch.ones(2, 2), torch.ones(2, 2), "none"), AssertionError),
        (lambda: poptorch.MultiConv().partialsTypes(torch.int32), ValueError),
        (lambda: poptorch.MultiConv().planType(3), AssertionError),
        (lambda: poptorch._impl.internal_cast(torch.ones(1), torch.int32), ValueError),
    ],
)
def test_annotations_check_what_they_get(call, error):
    with pytest.raises(error):
        call()


def test_recomputation_checkpoints_are_found_in_fx_graphs():
    class Model(nn.Module):
        def forward(self, x):
            return poptorch.recomputationCheckpoint(x + 1)

    poptorch_call = next(node for node in torch.fx.Tracer().trace(Model()).nodes if node.op == "call_function" and "recomp" in node.name)
    assert "recomputation_checkpoint" in poptorch_call.name


def test_tensors_are_printed_when_they_are_computed(capfd):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, x):
            return poptorch.identity_loss((poptorch.ipu_print_tensor(self.w * x, "product") * 3).sum(), reduction="none")

    executor = poptorch.trainingModel(Model(), poptorch.Options().deviceIterations(2))
    executor.compile(torch.ones(2, 1))
    assert "product" not in capfd.readouterr().err
    executor(torch.ones(2, 1))
    text = capfd.readouterr().err
    assert text.count("product:") == 2 and text.count("product_gradient:") == 2
    assert "(1., 2.)" in text.replace("1.0000", "1.").replace("2.0000", "2.") and "3." in text


def test_multi_convolutions():
    convolution = nn.Conv2d(1, 1, 1)

    def forward(x):
        with poptorch.MultiConv().planType(poptorch.MultiConvPlanType.Parallel).perConvReservedTiles(100):
            return convolution(x), convolution(x * 2)

    x = torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(run(forward, x), (convolution(x), convolution(x * 2)))
    with pytest.raises(poptorch.Error, match="Unexpected end_multi_conv"):
        run(lambda x: [poptorch.MultiConv().__enter__().__exit__(None), x], x)

    def nested(x):
        with poptorch.MultiConv(), poptorch.MultiConv():
            return convolution(x)

    with pytest.raises(poptorch.Error, match="Nested poptorch.MultiConv"):
        run(nested, x)


def overlapped(tiles=64, strategy=None, mode=None):
    options = poptorch.Options().setExecutionStrategy(strategy or poptorch.ShardedExecution())
    options.outputMode(poptorch.OutputMode.All if mode is None else mode)
    if tiles:
        options.TensorLocations.numIOTiles(tiles)
    return options


LOOP = poptorch.OverlapMode.OverlapDeviceIterationLoop


def test_overlapped_io_is_checked_at_compilation():
    def into(x):
        return poptorch.set_overlap_for_input(x, LOOP) * 2

    def out_of(x):
        return poptorch.set_overlap_for_output(x * 2, LOOP)

    x = torch.ones(2)
    assert run(into, x, options=overlapped()).tolist() == [2, 2]
    assert run(out_of, x, options=overlapped()).tolist() == [2, 2]
    with pytest.raises(poptorch.Error, match="Overlapped IO is not"):
        run(into, x, options=overlapped(strategy=poptorch.PipelinedExecution()))
    with pytest.raises(poptorch.Error, match="No IO tiles allocated"):
        run(into, x, options=overlapped(tiles=0))
    with pytest.raises(poptorch.Error, match="poptorch.set_overlap_for_output cannot be used"):
        run(out_of, x, options=overlapped(mode=poptorch.OutputMode.Final))
    with pytest.raises(poptorch.Error, match="poptorch.set_overlap_for_input applied on a"):
        run(lambda x: poptorch.set_overlap_for_input(x + 1, LOOP), x, options=overlapped())
    with pytest.raises(poptorch.Error, match="poptorch.set_overlap_for_output applied on a"):
        run(lambda x: poptorch.set_overlap_for_output(x * 2, LOOP) + 1, x, options=overlapped())
    with pytest.raises(poptorch.Error, match="poptorch.set_overlap_for_output must be the"):
        run(lambda x: [out_of(x)] * 2, x, options=overlapped())
    with pytest.raises(poptorch.Error, match="poptorch.set_overlap_for_input must be the"):
        run(lambda x: into(x) + x, x, options=overlapped())


# ---- decoding, point clouds, custom operators, torch.ops


def brute_force(log_probs, blank):
    """Log-probability of every label sequence, by all alignments."""
    steps, classes = log_probs.shape
    scores = {}
    for alignment in torch.cartesian_prod(*[torch.arange(classes)] * steps).tolist():
        path = tuple(c for i, c in enumerate(alignment) if c != blank and (i == 0 or alignment[i - 1] != c))
        score = sum(log_probs[t, c].item() for t, c in enumerate(alignment))
        scores.setdefault(path, []).append(score)
    return {path: torch.tensor(values).logsumexp(0).item() for path, values in scores.items()}


def test_ctc_decoding_finds_the_likeliest_sequences():
    torch.manual_seed(3)
    probs = torch.randn(4, 2, 3).log_softmax(2)
    scores, lengths, paths = run(lambda p, n: poptorch.ctc_beam_search_decoder(p, n, top_paths=3), probs, torch.tensor([4, 4]))
    assert (scores.shape, lengths.shape, paths.shape) == ((2, 3), (2, 3), (2, 3, 4))
    for sample in range(2):
        best = sorted(brute_force(probs[:, sample], 0).items(), key=lambda item: -item[1])[:3]
        for rank, (path, score) in enumerate(best):
            assert tuple(paths[sample, rank, : lengths[sample, rank]].tolist()) == path
            assert abs(scores[sample, rank].item() - score) < 1e-4  # float32 sums of 81 alignments
    with pytest.raises(poptorch.Error):
        run(lambda p: poptorch.ctc_beam_search_decoder(p, 3), probs)


def test_farthest_points_and_nearest_neighbours():
    points = torch.tensor([[0.0], [1.0], [10.0], [4.0], [5.0], [9.0]])
    assert run(lambda p: poptorch.fps(p, [0, 4, 6], ratio=0.5), points).tolist() == [0, 2, 4]
    x, y = torch.tensor([[0.0], [6.0], [9.5]]), torch.tensor([[1.0], [5.0], [10.0]])
    assert run(poptorch.nearest, x, y).tolist() == [0, 1, 2]
    groups = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    assert run(poptorch.nearest, x, y, *groups).tolist() == [2, 1, 1]


def test_custom_operators_take_plain_attributes_only():
    with pytest.raises(ValueError):
        poptorch.custom_op([torch.ones(1)], "Cube", "test", 1, [torch.ones(1)], attributes={"name": "caf\u00e9"})


def test_registered_torch_operators():
    operators = torch.ops.poptorch

    def forward(x):
        operators.push_name_scope("scope")
        x = operators.recomputation_checkpoint(operators.nop(x))
        operators.set_attribute("__outline", "layer", "one")
        operators.clear_attribute("__outline", "layer")
        x = operators.set_available_memory(x, 0.3)
        operators.pop_name_scope()
        return operators.identity_loss(operators.internal_cast(x, "FLOAT"), 0)

    assert run(forward, torch.ones(3)).item() == 3


def test_losses_of_registered_operators_count():
    assert run(lambda x: torch.ops.poptorch.identity_loss(x, 1), torch.tensor([1.0, 3.0]), training=True).item() == 2


def test_cross_entropy_takes_int32_labels():
    x, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    result = run(lambda x, y: F.cross_entropy(x, y), x, labels.to(torch.int32))
    torch.testing.assert_close(result, F.cross_entropy(x, labels))
