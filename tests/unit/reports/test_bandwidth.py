"""Share of the calibrated bandwidth: waiting left out, the same sizes, only what was calibrated."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cluster import Cluster, CollectiveModel, load_cluster, save_cluster
from gnnbench.ledger import Row, write_ledger
from gnnbench_reports.bandwidth import bandwidths, calibrated, finding, shares
from gnnbench_reports.opening import find_machine, read_study

RATE, LATENCY = 1e9, 1e-3


def model(op: str, ranks: int = 2, status: str = "measured") -> CollectiveModel:
    return CollectiveModel(
        op=op, ranks=ranks, layout="intra", latency_s=LATENCY, bytes_per_s=RATE, status=status
    )


def machine(*models: CollectiveModel) -> Cluster:
    base = load_cluster("cpu-2core")
    return dataclasses.replace(base, name="bench", collectives=models)


def step(period: int, kind: str, size: int, took: float, **more: Any) -> Row:
    fields: dict[str, Any] = {
        "period": period,
        "iteration": 0,
        "name": f"a {kind}",
        "kind": kind,
        "op": kind,
        "lane": "comm",
        "phase": "forward",
        "layer": 1,
        "group_size": 2,
        "bytes": size,
        "flops": 0,
        "start_s": 0.0,
        "duration_s": took,
    }
    return Row(**(fields | more))


def measured(fabricator: Any, *ranks: list[Row], cluster: Cluster | None = None) -> Any:
    spec = fabricator.spec("cora", "gcn", "partition", len(ranks))
    fabricator.run(spec, ledgers=False)
    fabricator.prediction(spec)
    for rank, rows in enumerate(ranks):
        folder: Path = fabricator.results.run_folder(spec.run_id)
        write_ledger(folder / f"ledger-rank{rank}.csv", rows)
    save_cluster(
        cluster or machine(model("all_to_all"), model("broadcast")),
        fabricator.results.folder / "cluster.toml",
    )
    return read_study(fabricator.results)


def test_the_rank_held_up_least_tells_the_time_of_a_step(fabricator: Any) -> None:
    # One megabyte calibrates to 1 ms + 1 ms; rank 0 came early and waited.
    early = [step(e, "all_to_all", 1_000_000, 0.050) for e in (1, 2, 3)]
    late = [step(e, "all_to_all", 600_000, 0.0025) for e in (1, 2, 3)]
    (row,) = bandwidths(measured(fabricator, early, late))
    assert row.bytes == 1_000_000
    assert row.measured_s == pytest.approx(0.0025)
    assert row.share == pytest.approx(0.8)


def test_a_broadcast_is_judged_by_its_buffer(fabricator: Any) -> None:
    three = machine(model("broadcast", ranks=3))
    root = [step(1, "broadcast", 2_000_000, 0.002, group_size=3)]
    other = [step(1, "broadcast", 0, 0.002, group_size=3)]
    (row,) = bandwidths(measured(fabricator, root, other, other, cluster=three))
    assert row.bytes == 1_000_000
    assert row.share == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"period": 0},
        {"phase": "evaluate"},
        {"lane": "background"},
        {"group_size": 1},
        {"kind": "barrier"},
        {"kind": "all_gather"},
        {"bytes": 0},
    ],
    ids=str,
)
def test_what_calibration_has_no_like_of_is_left_out(
    fabricator: Any, change: dict[str, Any]
) -> None:
    fields = {"period": 1, "kind": "all_to_all", "bytes": 1000}
    row = step(1, "all_to_all", 1000, 0.001)._replace(**(fields | change))
    assert bandwidths(measured(fabricator, [row], [row])) == []


def test_ranks_that_wrote_different_steps_are_not_judged(fabricator: Any) -> None:
    one = [step(1, "all_to_all", 1000, 0.001)]
    other = [step(1, "all_to_all", 1000, 0.001, name="another")]
    assert bandwidths(measured(fabricator, one, other)) == []


def test_only_measured_collectives_of_the_same_ranks_judge() -> None:
    there = machine(model("all_to_all"), model("all_reduce", status="assumed"))
    assert calibrated(there, "all_to_all", 2, "intra") is not None
    assert calibrated(there, "all_to_all", 4, "intra") is None
    assert calibrated(there, "all_to_all", 2, "inter") is None
    assert calibrated(there, "all_reduce", 2, "intra") is None


def test_a_pair_among_four_ranks_does_not_judge_a_pair_alone() -> None:
    crowded = dataclasses.replace(model("all_to_all"), co_located=4)
    assert calibrated(machine(crowded), "all_to_all", 2, "intra") is None
    both = calibrated(machine(crowded, model("all_to_all")), "all_to_all", 2, "intra")
    assert both is not None
    assert both.co_located == 0


def test_kinds_of_a_configuration_weigh_by_their_time(fabricator: Any) -> None:
    rows = [step(1, "all_to_all", 1_000_000, 0.004), step(1, "broadcast", 1_000_000, 0.002)]
    study = measured(fabricator, rows, rows)
    assert shares(bandwidths(study)) == {"partition": [pytest.approx(4 / 6)]}
    found = finding(study)
    assert found is not None
    assert found.verdict == ("Share of the calibrated bandwidth, median: partition 67 %.",)


def test_the_cluster_kept_with_the_predictions_goes_before_the_folders_own(
    fabricator: Any,
) -> None:
    folder = fabricator.results.folder
    save_cluster(machine(model("broadcast")), folder / "cluster.toml")
    kept = fabricator.results.cluster_file("bench")
    kept.parent.mkdir()
    save_cluster(machine(model("all_to_all")), kept)
    found = find_machine(fabricator.results, "bench")
    assert found is not None
    assert [one.op for one in found.collectives] == ["all_to_all"]
    assert find_machine(fabricator.results, "elsewhere") is None
