"""No false "fits": real runs, and predictions with caps around the peak that was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cluster import Cluster, Constant, load_cluster
from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.results import Results, RunRecord
from gnnbench.spec import BatchSpec, DatasetRef, MemorySpec, ModelSpec, RunSpec, TrainingSpec
from gnnbench_runtime.launch import launch
from gnnbench_simulator.memory import FITS, TOO_LARGE
from gnnbench_simulator.session import predict_run

pytestmark = pytest.mark.distributed

CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("single", 1, {}),
    ("partition", 2, {}),
    ("cagnet-1d", 2, {}),
    ("sampled", 1, {}),
    ("sampled", 2, {"placement": "partitioned"}),
    ("graphsaint", 1, {}),
)
"""Approaches, ranks and knobs: workloads of 30 MB and more a rank."""
_ROOMY = 2.0
"""Times the measured workload: room for that, and for what the allocator may keep of batches whose
sizes change."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = generate(
        "planted_partition", num_nodes=16_000, mean_degree=10, num_classes=8, num_features=512
    )
    return native.save(found, tmp_path_factory.mktemp("data") / "graph")


def _run(approach: str, ranks: int, knobs: dict[str, Any], graph: Path, cap: int = 0) -> RunSpec:
    return RunSpec(
        suite="tests",
        dataset=DatasetRef(name="wide", path=str(graph), kind="graph", digest="0"),
        model=ModelSpec(name="sage", kind="sage", hidden=256, layers=2),
        batch=BatchSpec(size=1024, fanouts_from_seeds=(10, 5)),
        training=TrainingSpec(epochs=2),
        approach=approach,
        ranks=ranks,
        knobs=knobs,
        memory=MemorySpec(device=cap),
    )


def _cluster(baseline: int) -> Cluster:
    """This machine: what a process needs before it has data was measured."""
    cluster = load_cluster("cpu-2core")
    context = Constant(value=float(baseline), status="measured", source="a run")
    return dataclasses.replace(
        cluster, device=dataclasses.replace(cluster.device, context_bytes=context)
    )


@pytest.fixture(scope="module")
def measured(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunRecord]:
    results = Results(tmp_path_factory.mktemp("runs"))
    known: dict[str, RunRecord] = {}

    def train(run: RunSpec) -> RunRecord:
        if run.config_id not in known:
            known[run.config_id] = launch(run, native.load(graph), graph, results, device="cpu")
        return known[run.config_id]

    return train


@pytest.mark.parametrize(("approach", "ranks", "knobs"), CASES, ids=lambda case: str(case))
def test_a_cap_below_the_measured_peak_never_fits_and_one_well_above_does(
    approach: str,
    ranks: int,
    knobs: dict[str, Any],
    graph: Path,
    measured: Callable[..., RunRecord],
) -> None:
    record = measured(_run(approach, ranks, knobs, graph))
    assert record.status == "ok", record.reason
    # The run evaluates after its last epoch, and a cap holds then, too.
    peak, baseline = max(
        (max(rank["peak_bytes"], rank["evaluation_peak_bytes"]), rank["baseline_bytes"])
        for rank in record.memory
    )
    workload = peak - baseline
    assert workload > 20e6
    cluster, data = _cluster(baseline), native.load(graph)
    for cap in (peak - 1, peak - workload // 20):  # just below, and 5 % of the workload below
        below, _ = predict_run(_run(approach, ranks, knobs, graph, cap), data, cluster)
        verdicts = {rank["verdict"] for rank in below.memory}
        assert verdicts != {FITS}, f"{approach} needed {peak} B, and {cap} B are said to be enough"
    roomy = baseline + round(_ROOMY * workload)
    above, _ = predict_run(_run(approach, ranks, knobs, graph, roomy), data, cluster)
    assert {rank["verdict"] for rank in above.memory} == {FITS}
    barely, _ = predict_run(
        _run(approach, ranks, knobs, graph, baseline + workload // 2), data, cluster
    )
    assert TOO_LARGE in {rank["verdict"] for rank in barely.memory}


def test_what_is_printed_is_what_was_judged(graph: Path) -> None:
    cluster, data = _cluster(300_000_000), native.load(graph)
    record, _ = predict_run(_run("single", 1, {}, graph, 310_000_000), data, cluster)
    (entry,) = record.memory
    assert entry["verdict"] == TOO_LARGE
    assert sum(entry["categories"]["memory"].values()) == entry["judged_bytes"]
    assert f"needs {entry['judged_bytes'] / 2**30:.1f} GiB" in record.reason
    assert entry["spaces"]["memory"]["headroom_bytes"] == 310_000_000 - entry["judged_bytes"]
