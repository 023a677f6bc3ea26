"""Calibration for real, on a handful of probes: what it measures, and in which company."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gnnbench.cluster import TRANSFER
from gnnbench.ledger import Row
from gnnbench_runtime.calibration import calibrate as calibration
from gnnbench_runtime.calibration import rank
from gnnbench_runtime.calibration.workloads import LARGE, USUAL, of_turn, workloads

pytestmark = pytest.mark.distributed


def _measure(world: int, count: int) -> list[dict[str, Any]]:
    request = {"count": count, "epochs": 6, "sweeps": 1, "threads": 1, "device": "cpu"}
    return calibration._measure(request, world, lambda word, share: None)


@pytest.fixture(scope="module")
def four() -> list[dict[str, Any]]:
    return _measure(4, 0)


def test_small_groups_are_swept_among_their_peers(four: list[dict[str, Any]]) -> None:
    models = calibration._fit_sweeps(four, 4)
    found = {(m.op, m.ranks) for m in models if not m.op.endswith(TRANSFER)}
    whole = {"all_reduce", "all_to_all", "all_gather", "reduce_scatter", "broadcast"}
    assert found == {(op, n) for op in whole for n in (2, 4)} | {("send", 2)}
    assert {(m.op, m.ranks) for m in models} == found | {(op + TRANSFER, n) for op, n in found}
    assert {m.co_located for m in models} == {4}
    assert all(m.latency_s > 0 and m.bytes_per_s > 0 for m in models)


def test_both_small_groups_give_points_and_the_whole_group_one_of_each(
    four: list[dict[str, Any]],
) -> None:
    points = {(m.op, m.ranks): m.points for m in calibration._fit_sweeps(four, 4)}
    assert points["all_reduce", 2] == 2 * points["all_reduce", 4]


def _entry(work_s: list[float], seconds: list[float], one_way: bool = False) -> dict[str, Any]:
    return {"work_s": work_s, "seconds": seconds, "one_way": one_way}


def test_a_collective_takes_what_it_adds_to_the_computing_before_it() -> None:
    """Two ranks: one computes 1 s and waits 3 s, the other 3 s and is held up 1 s; then alike."""
    members = [_entry([1.0, 2.0], [3.0, 1.0]), _entry([3.0, 2.0], [1.0, 1.0])]
    assert calibration._added_s(members, turns=1.0) == pytest.approx(3.5 - 2.0)


def test_where_ranks_take_turns_their_computing_lasts_as_many_turns() -> None:
    """Four ranks on two cores: 1 s of work alone is 2 s of each round."""
    members = [_entry([1.0] * 3, [4.0] * 3)] * 4
    assert calibration._added_s(members, turns=2.0) == pytest.approx(3.0)


def test_of_a_call_one_way_the_end_counts() -> None:
    members = [_entry([1.0], [0.5], True), _entry([1.0], [2.5], True)]
    assert calibration._added_s(members, turns=1.0) == pytest.approx(2.5)


@pytest.mark.parametrize(("late", "counts"), [(4, 1.0), (40, 2.0)], ids=["few", "many"])
def test_delays_count_as_far_as_the_median_epoch_has_them(late: int, counts: float) -> None:
    """400 calls of 1 s of which some take 11 s: none in the median epoch of ten calls, or one."""
    calls = np.ones(400)
    calls[:late] = 11.0
    assert calibration._of_median_epoch(calls) == pytest.approx(counts)


def test_ranks_asked_for_no_probes_measure_collectives_alone(four: list[dict[str, Any]]) -> None:
    assert all(not content["steps"] and not content["probes"] for content in four)


def test_samples_know_their_workload_and_probes_are_fewer_than_epochs() -> None:
    (content,) = _measure(1, 2)
    assert {entry["workload"] for entry in content["steps"]} == {1, 2}
    assert len(content["probes"]) == 2 * 2  # of six epochs, the first and the fourth follow one
    ops = Counter(entry["op"] for entry in content["steps"])
    assert ops["spmm"] and ops["adam"]


def test_a_few_full_graph_probes_outgrow_caches_and_none_its_scale() -> None:
    probes = workloads(80, threads=1, epochs=6)
    large = [w for w in probes if w.options["num_nodes"] > USUAL.nodes[1]]
    assert len(large) == 5 and all(w.run.approach != "sampled" for w in large)
    assert {w.run.model.kind for w in large} == {"gat", "sage"}
    for w in probes:
        scale = LARGE if w in large else USUAL
        nodes, degree = w.options["num_nodes"], w.options["mean_degree"]
        assert nodes <= scale.nodes[1] and nodes * degree <= scale.edges
        assert nodes * w.options["num_features"] <= scale.feature_elements
        if w.run.model.kind == "gat" and w.run.model.hidden > 8:
            assert nodes * degree * w.run.model.hidden <= scale.edge_values


def _row(epoch: int, start_s: float, duration_s: float) -> Row:
    return Row(
        epoch=epoch, iteration=0, name="a", kind="gemm", op="gemm_nn", lane="compute",
        phase="forward", layer=1, group_size=1, bytes=0, flops=0, start_s=start_s,
        duration_s=duration_s,
    )  # fmt: skip


def test_gaps_are_between_steps_and_what_lies_before_and_after_is_shared() -> None:
    """An epoch of 10 s from 100 s on: 1 s before, steps of 2 and 3 s, 1 s between, 3 s after."""
    rows = [_row(0, 101.0, 2.0), _row(0, 104.0, 3.0), _row(1, 111.0, 5.0)]
    assert rank._gaps(rows, [10.0, 5.0]) == pytest.approx([1.0 + 2.0, 2.0, 0.0])


def test_turns_share_the_probes_out_and_each_has_large_ones() -> None:
    probes = workloads(80, threads=1, epochs=6)
    turns = [of_turn(probes, turn, 2) for turn in (0, 1)]
    assert sorted(id(w) for turn in turns for w in turn) == sorted(map(id, probes))
    for turn in turns:
        assert sum(w.options["num_nodes"] > USUAL.nodes[1] for w in turn) >= 2


def test_what_turns_measured_is_joined_rank_by_rank() -> None:
    def content(probe_s: float, workloads: int) -> dict[str, Any]:
        entries = [{"workload": n + 1, "probes": probe_s} for n in range(workloads)]
        return {
            "steps": entries, "probes": [probe_s], "collectives": [probe_s],
            "workloads": workloads, "baseline_bytes": 5,
        }  # fmt: skip

    first, second = calibration._joined(
        [[content(1.0, 2), content(2.0, 2)], [content(3.0, 1), content(4.0, 1)]]
    )
    assert [entry["workload"] for entry in first["steps"]] == [1, 2, 3]
    assert (first["probes"], second["collectives"]) == ([1.0, 3.0], [2.0, 4.0])
    assert first["baseline_bytes"] == 5
