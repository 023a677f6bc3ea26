"""What DGL and PyG do beside the products of a layer, and who issues it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import mini_batch, planned, row

from gnnbench.ledger import Row
from gnnbench.published.frameworks import (
    ALLOCATED,
    ALLOCATION_LAUNCHES,
    ORDER_LAUNCHES,
    order_entries,
)
from gnnbench.published.metrics import phase_time
from gnnbench.published.released import EAGER
from gnnbench.published.software import ISSUE
from gnnbench.published.systems import Case, case_of
from gnnbench.steps import After, Kind, Lane, Phase, Step

ON_V100 = {
    "model": "GCN",
    "fanout": "5-10-15 (run_config order)",
    "batch": "8000",
    "hardware": "8x V100-16GB; 2x Xeon 8163 (48 cores); 512GB",
    "dataset": "ogbn-papers100M",
    "system": "DGL",
    "gpus": "1",
}
SALIENT = {
    "source": "SALIENT artifact (MLSys 2022)",
    "dataset": "ogbn-products",
    "fanout": "15-10-5",
    "batch": "1024",
    "hardware": "1x V100-32GB",
    "gpus": "1",
    "notes": "half-precision features",
}


def steps_of(**given: Any) -> tuple[dict[str, Step], dict[str, Step]]:
    """Steps by name, of our plan and as the framework takes them."""
    plans = planned(**given)
    plans.released.validate()
    ours, theirs = (
        {step.name: step for step in plan.iterations[-1][0]}
        for plan in (plans.ours, plans.released)
    )
    return ours, theirs


# Patterns


def test_dgl_orders_each_block_by_both_ends_for_the_degrees_of_a_gcn() -> None:
    ours, theirs = steps_of(**ON_V100)
    for layer in (1, 2, 3):
        done = ours[f"forward/{layer}/spmm"].work
        for end, rows in (("target", done.rows), ("source", done.source_rows)):
            made = theirs[f"forward/{layer}/spmm_by_{end}"].work
            assert made == order_entries(done.nonzeros, 4, int(rows).bit_length())
        assert f"backward/{layer}/spmm_by_source" not in theirs


def test_dgl_orders_a_block_by_source_only_for_the_gradient_of_an_input() -> None:
    _, theirs = steps_of(**{**ON_V100, "model": "GraphSAGE"})
    by_source = {name for name in theirs if name.endswith("by_source")}
    assert by_source == {"backward/2/spmm_by_source", "backward/3/spmm_by_source"}
    assert all(f"forward/{layer}/spmm_by_target" in theirs for layer in (1, 2, 3))


def test_pyg_gets_blocks_in_order_and_orders_them_by_source_with_wide_keys() -> None:
    ours, theirs = steps_of(**SALIENT, system="SALIENT")
    ordered = {name for name, step in theirs.items() if step.op == "order_entries"}
    assert ordered == {"forward/2/spmm_by_source", "forward/3/spmm_by_source"}
    entries = ours["forward/2/spmm"].work.nonzeros
    assert theirs["forward/2/spmm_by_source"].work == order_entries(entries, 8, 64)


def test_a_radix_sort_takes_a_pass_for_six_bits_and_selects_the_other_end_at_random() -> None:
    assert order_entries(10, 4, 12).bytes == 10 * (2 * (3 * 4 + 16) + 16 + 32 + 8)
    assert order_entries(10, 4, 13).bytes - order_entries(10, 4, 12).bytes == 10 * 28


# Passes over rows


def test_a_gcn_of_dgl_scales_both_ends_each_way_and_cuda_10_transposes_products() -> None:
    ours, theirs = steps_of(**ON_V100)
    first, second = (ours[f"forward/{layer}/spmm"].work for layer in (1, 2))
    size = {name: step.bytes for name, step in theirs.items()}
    assert size["forward/1/spmm_scale"] == 2 * 4 * first.source_rows * 128
    assert size["forward/1/spmm_scale_targets"] == 2 * 4 * first.rows * 256
    assert size["forward/1/spmm_transpose"] == 2 * 4 * first.rows * 128
    assert size["forward/1/spmm_zeros"] == 4 * first.rows * 128
    assert size["backward/1/bias_scale"] == 2 * 4 * first.rows * 256
    assert size["backward/2/spmm_scale"] == 2 * 4 * second.source_rows * 256
    assert size["backward/2/spmm_transpose"] == 2 * 4 * second.source_rows * 256
    later = {**mini_batch_steps(), **steps_of(**SALIENT, system="PyG")[1]}
    assert not any(name.endswith("_transpose") for name in later)


def mini_batch_steps() -> dict[str, Step]:
    return {step.name: step for step in mini_batch().released.iterations[0][0]}


def test_dgl_narrows_rows_before_it_sums_them_and_pyg_sums_first() -> None:
    """Layer 3 of a GCN on ogbn-papers100M goes from 256 to 172 columns."""
    _, theirs = steps_of(**ON_V100)
    assert theirs["forward/3/spmm"].work.width == 172
    assert theirs["forward/2/spmm"].work.width == 256
    _, of_pyg = steps_of(**SALIENT, system="PyG")
    assert of_pyg["forward/3/spmm"].work.width == 256


def test_means_are_divided_in_a_pass_of_dgl_and_weights_of_their_own_are_summed() -> None:
    given = {**ON_V100, "model": "GraphSAGE"}
    ours, theirs = steps_of(**given)
    second = ours["forward/2/spmm"].work
    assert theirs["forward/2/spmm_divide"].bytes == 2 * 4 * second.rows * 256
    assert theirs["backward/2/spmm_divide"].bytes == 2 * 4 * second.rows * 256
    assert theirs["forward/2/self_sum"].bytes == 3 * 4 * second.rows * 256
    assert theirs["backward/2/spmm_accumulate"].bytes == 4 * 4 * second.source_rows * 256
    assert "backward/1/spmm_accumulate" not in theirs
    _, of_pyg = steps_of(**SALIENT, system="PyG")
    assert "forward/2/spmm_divide" not in of_pyg


def test_salient_trains_on_symmetric_graphs_from_pinned_rows_in_half_precision() -> None:
    case = case_of(row(**{**SALIENT, "dataset": "ogbn-papers100M", "system": "PyG"}))
    assert isinstance(case, Case)
    assert case.profile.name == "papers100m-both-ways"
    ours, theirs = steps_of(**SALIENT, system="PyG")
    rows = ours["fetch/gather"].work.rows
    assert theirs["fetch/gather_host"].bytes == rows * 100 * 2
    assert theirs["fetch/gather_slice"].lane is Lane.HOST.at(1)
    assert theirs["forward/1/spmm_widen"].bytes == rows * 100 * 6


# Who issues


def test_a_step_of_training_waits_for_its_issue_and_the_process_for_the_batch_before() -> None:
    _, theirs = steps_of(**ON_V100)
    trained = [s for s in theirs.values() if s.phase in (Phase.FORWARD, Phase.BACKWARD)]
    on_device = [s for s in trained if s.lane is Lane.COMPUTE]
    issued = [s for s in trained if s.lane is ISSUE]
    assert len(on_device) == len(issued)
    for step, issue in zip(on_device, issued, strict=True):
        assert After(issue.name) in step.after
        assert not issue.bytes
    assert issued[0].work.calls == ORDER_LAUNCHES + 1
    assert After("update/adam", 1) in issued[0].after
    assert all(not issue.after for issue in issued[1:])  # the process runs ahead
    first_product = next(s for s in issued if s.name == "forward/1/gemm/eager")
    assert first_product.work.calls == EAGER + 1
    assert not any(s.kind is Kind.ELEMENTWISE and s.op == "eager" for s in on_device)


def test_training_takes_from_its_first_issue_to_its_last_step() -> None:
    def took(lane: Lane, phase: Phase, start: float, seconds: float, iteration: int = 0) -> Row:
        place = str(lane), phase.value
        return Row(0, iteration, "step", "", "", *place, 0, 1, 0, 0, start, seconds)

    ledger = [
        took(Lane.COMPUTE, Phase.FETCH, 0.0, 2.0),
        took(ISSUE, Phase.FORWARD, 2.0, 1.0),
        took(Lane.COMPUTE, Phase.FORWARD, 3.0, 4.0),
        took(ISSUE, Phase.BACKWARD, 3.0, 1.0),
        took(Lane.COMPUTE, Phase.BACKWARD, 7.0, 0.5),
        took(ISSUE, Phase.FORWARD, 10.0, 3.0, iteration=1),
        took(Lane.COMPUTE, Phase.FORWARD, 13.0, 1.0, iteration=1),
    ]

    def of(metric: str, notes: str = "") -> float | None:
        return phase_time(row(metric=metric, notes=notes), {0: ledger}, steps=2, period_s=15.0)

    assert of("train_time_per_epoch") == pytest.approx(5.5 + 4.0)
    assert of("train_time_per_batch") == pytest.approx((5.5 + 4.0) / 2)
    assert of("extract_time_per_epoch") == pytest.approx(2.0)
    exposed = of("sampling_slicing_time_per_epoch", notes="exposed")
    assert exposed == pytest.approx(15.0 - 2.0 - 9.5)


def test_dgl_before_its_pool_of_memory_waits_for_allocations_where_it_orders_a_block() -> None:
    _, old = steps_of(**ON_V100, source="GNNLab artifact (EuroSys 2022)")
    waits = [step for name, step in old.items() if name.endswith("_allocate")]
    ordered = [name for name in old if name.endswith(("_by_target", "_by_source"))]
    assert len(waits) == len(ordered) == 6
    assert {step.work.calls for step in waits} == {ALLOCATED * ALLOCATION_LAUNCHES}
    assert all(step.lane is Lane.COMPUTE for step in waits)
    _, later = steps_of(
        system="DGL", fanout="5-10-15", batch="1024/GPU", gpus="1", dataset="reddit"
    )
    assert not any(name.endswith("_allocate") for name in later)
