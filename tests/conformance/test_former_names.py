"""Section 18.11: names of PopTorch 2 that its users' programs still have."""

from __future__ import annotations

import sys

import pytest
import torch

import poptorch


@pytest.mark.skipif("ipu_model" not in sys.modules, reason="PopTorch 3 lacks them")
def test_renamed_options_still_work_and_say_their_new_name(caplog):
    options = poptorch.Options().anchorMode(poptorch.OutputMode.EveryN, 3)
    assert (options.output_mode, options.output_return_period) == (poptorch.OutputMode.EveryN, 3)
    assert options.anchorMode(poptorch.AnchorMode.Sum).output_mode == poptorch.OutputMode.Sum
    options._popart.setPatterns({"MatMulRhsGradOp": False})
    assert options._Popart.options["patterns"] == {"MatMulRhsGradOp": False}
    options.Training.accumulationReductionType(poptorch.ReductionType.Sum)
    assert options.Training.accumulation_and_replication_reduction_type == poptorch.ReductionType.Sum
    said = [record.message for record in caplog.records]
    for former, successor in (
        ("Options.anchorMode", "outputMode"),
        ("poptorch.AnchorMode", "OutputMode"),
        ("_popart", "_Popart"),
        ("accumulationReductionType", "accumulationAndReplicationReductionType"),
    ):
        assert len([line for line in said if former in line and successor in line]) == 1


@pytest.mark.skipif("ipu_model" not in sys.modules, reason="PopTorch 3 lacks them")
def test_autocasting_is_accepted_and_said_to_do_nothing(caplog):
    precision = poptorch.Options().Precision
    assert precision.autocastEnabled(False) is precision
    with poptorch.autocast(enabled=False):
        pass
    assert not caplog.records
    precision.autocastEnabled(True).autocastPolicy(poptorch.Policy(fp16=[torch.matmul]))

    @poptorch.autocast()
    def product(a):
        return a @ a

    assert product(torch.ones(2, 2)).dtype == torch.float32
    assert len(caplog.records) == 3 and all("types of their inputs and weights" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("deviceIteration", "deviceIterations"), ("replicationfactor", "replicationFactor"), ("training", "Training")]
)
def test_unknown_options_name_the_nearest(wrong, nearest):
    with pytest.raises(AttributeError, match=f"'{nearest}'" if "ipu_model" in sys.modules else wrong):
        getattr(poptorch.Options(), wrong)


@pytest.mark.skipif("ipu_model" not in sys.modules, reason="advice of the IPU Model")
def test_unknown_options_that_resemble_none_list_what_there_is():
    with pytest.raises(AttributeError, match="known: .*device_iterations"):
        poptorch.Options().nothingLikeIt  # noqa: B018
    with pytest.raises(AttributeError, match="known: .*setPartialsType"):
        poptorch.Options().Precision.nothingLikeIt  # noqa: B018
