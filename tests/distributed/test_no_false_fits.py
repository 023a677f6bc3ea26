"""Every approach trains under the smallest memory cap for which the prediction says "fits".

Each approach is trained and evaluated once without a cap, to measure its peak: that of both phases
together. Then it is trained under the smallest cap for which the prediction says "fits": if that
run ends for lack of memory, the answer was false. A prediction may not say "fits" for a cap below
the measured peak, and is within a tenth of the workload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import Cluster, Constant, load_cluster
from gnnbench.data.source import Library
from gnnbench.results import Results, RunRecord
from gnnbench.spec import MemorySpec, RunSpec
from gnnbench_runtime.session import run_all
from gnnbench_simulator.memory import FITS, judge
from gnnbench_simulator.needs import Needs, needs_of
from gnnbench_simulator.session import layout_on

pytestmark = [pytest.mark.distributed, pytest.mark.deep]

LARGE: dict[str, dict[str, Any]] = {
    "planted_partition": {
        "num_nodes": 12_000,
        "mean_degree": 8.0,
        "num_classes": 8,
        "num_features": 512,
    },
    "synthetic_stream": {"num_nodes": 8_000, "num_edges": 8_000, "num_edge_features": 256},
    "synthetic_triples": {"num_entities": 100_000, "num_relations": 4, "num_triples": 200_000},
}
"""Options of generators that give workloads of 20 MB and more a rank."""
OPTIONS: dict[str, dict[str, Any]] = {
    # Four ranks: what a process holds for its peers, some MB, is in no plan.
    "cagnet-1.5d": {"num_nodes": 60_000},
    "bns": {"num_nodes": 36_000},
    "edgebank": {"num_nodes": 50_000, "num_edges": 500_000, "num_edge_features": 1},
    "embeddings": {"num_entities": 40_000, "num_triples": 20_000},
}
"""Options of approaches whose workloads would be too small, or take too long."""
KNOBS: dict[str, dict[str, Any]] = {
    "gist": {"local_steps": 2},
    "graphsaint": {"budget": 1000},
    "ladies": {"layer_vertices": 2000},
}
"""Knobs of examples that are too small for such graphs."""
_LEAST = 10e6
"""Bytes of workload below which what the C library keeps would be most of what is measured."""
_WITHIN = 0.1
"""Relative error of a predicted workload, beside freed buffers of changing size (`Needs.loose`):
how much of them the C library keeps, and uses again, differs from run to run."""


def enlarged(approach: str) -> RunSpec:
    """The first example of an approach on a dataset of tens of megabytes, in float32."""
    run = APPROACHES.get(approach).examples()[0]
    generator = run.dataset.generator
    size = run.batch.size and (1024 if generator != "synthetic_stream" else 200)
    fanouts = run.batch.fanouts_from_seeds and (10, 5)
    return dataclasses.replace(
        run,
        suite="tests",
        dataset=dataclasses.replace(
            run.dataset, name="large", options={**LARGE[generator], **OPTIONS.get(approach, {})}
        ),
        model=dataclasses.replace(run.model, hidden=128),
        batch=dataclasses.replace(
            run.batch,
            **({"size": size} if size else {}),
            **({"fanouts_from_seeds": fanouts} if fanouts else {}),
        ),
        training=dataclasses.replace(run.training, precision="float32", epochs=2),
        knobs={**run.knobs, **KNOBS.get(approach, {})},
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def train(results: Results) -> Callable[[RunSpec], RunRecord]:
    def run(spec: RunSpec) -> RunRecord:
        ((record, _),) = run_all([spec], results, [results.folder], device="cpu")
        return record

    return run


def _cluster(baseline: int) -> Cluster:
    """This machine: what a process needs before it has data was measured."""
    cluster = load_cluster("cpu-2core")
    context = Constant(value=float(baseline), status="measured", source="a run")
    return dataclasses.replace(
        cluster, device=dataclasses.replace(cluster.device, context_bytes=context)
    )


def _needs(run: RunSpec, results: Results, cluster: Cluster) -> Needs:
    card = APPROACHES.get(run.approach)
    data = Library([results.folder], results.folder / "cache").dataset(run.dataset)
    layout = layout_on(run, cluster, run.ranks)
    cache = results.cache("shared").absolute()
    return needs_of(card.plan(data, run, card.structure(data, run, cache), layout), gpu=False)


def _fits(needs: Needs, cluster: Cluster, ranks: int, cap: int) -> bool:
    return {r["verdict"] for r in judge(needs, cluster, ranks, {"device": cap})} == {FITS}


def _measured(record: RunRecord) -> tuple[str, int, int]:
    """The phase with the highest peak of any rank, that peak, and the rank's baseline."""
    peaks = [
        (rank.get(key, 0), phase, rank["baseline_bytes"])
        for rank in record.memory
        for phase, key in (("training", "peak_bytes"), ("evaluation", "evaluation_peak_bytes"))
    ]
    peak, phase, baseline = max(peaks)
    return phase, int(peak), int(baseline)


@pytest.mark.parametrize("approach", APPROACHES.names())
def test_the_smallest_cap_that_is_said_to_fit_is_enough(
    approach: str, results: Results, train: Callable[[RunSpec], RunRecord]
) -> None:
    run = enlarged(approach)
    record = train(run)
    assert record.status == "ok", record.reason
    phase, peak, baseline = _measured(record)
    workload = peak - baseline
    assert workload > _LEAST
    cluster = _cluster(baseline)
    needs = _needs(record.run, results, cluster)
    predicted = max(needs.workload)
    print(
        f"{approach}: workload {workload / 1e6:.1f} MB in {phase}, predicted "
        f"{predicted / 1e6:.1f} MB ("
        + ", ".join(
            f"{max(of.workload) / 1e6:.1f} MB in {name}" for name, of in needs.phases.items()
        )
        + f"), ratio {predicted / workload:.2f}"
    )
    for cap in (peak - 1, peak - workload // 20):  # just below, and 5 % of the workload below
        assert not _fits(needs, cluster, run.ranks, cap), f"needed {peak} B, {cap} B said to fit"
    low, high = peak, peak + 4 * workload
    assert _fits(needs, cluster, run.ranks, high)
    while high - low > workload // 200:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(needs, cluster, run.ranks, middle) else (middle, high)
    capped = train(dataclasses.replace(run, memory=MemorySpec(device=high)))
    print(f"{approach}: said to fit from {(high - baseline) / 1e6:.1f} MB of workload")
    assert capped.status == "ok", f"predicted to fit into {high} B: {capped.reason}"
    assert abs(predicted - workload) <= _WITHIN * workload + max(needs.loose)
