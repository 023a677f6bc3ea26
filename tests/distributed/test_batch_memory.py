"""Resident memory of mini-batches on real ranks against the buffers of their plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.results import Results
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import Space
from gnnbench_runtime.held import plan_run
from gnnbench_runtime.launch import launch

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 vertices of 160 features: 12.8 MB; 6,000 of them are training ones."""
    graph = generate(
        "planted_partition",
        num_nodes=20_000,
        mean_degree=16,
        num_classes=16,
        num_features=160,
        train_fraction=0.3,
        seed=1,
    )
    return native.save(graph, tmp_path_factory.mktemp("data") / "graph")


@pytest.mark.parametrize(
    ("approach", "ranks", "model", "knobs"),
    [
        ("sampled", 1, {"dropout": 0.5}, {}),
        ("sampled", 2, {"kind": "sage", "norm": "layer"}, {"prefetch": 2}),
        ("sampled", 2, {"kind": "gat", "heads": 4}, {"placement": "partitioned"}),
        ("sampled", 1, {}, {"placement": "host"}),
        ("sampled", 1, {}, {"placement": "host", "cache_policy": "planned", "lookahead": 4}),
        ("labor", 1, {"kind": "sage"}, {}),
    ],
)
def test_the_workload_is_predicted_within_a_tenth(
    folder: Path,
    results: Results,
    approach: str,
    ranks: int,
    model: dict[str, Any],
    knobs: dict[str, Any],
) -> None:
    """Of what a rank holds beyond the process itself, not of the peak."""
    run = RunSpec(
        suite="tests",
        dataset=DatasetRef(name="g", path=str(folder)),
        model=ModelSpec(name="m", **model),
        batch=BatchSpec(size=1024, fanouts_from_seeds=(10, 10)),
        training=TrainingSpec(epochs=3, evaluate_every=1),
        approach=approach,
        ranks=ranks,
        knobs=knobs,
    )
    data = native.load(folder)
    record = launch(run, data, folder, results, device="cpu")
    assert record.status == "ok", record.reason
    cache = results.cache("shared").absolute()
    plan = plan_run(run, data, cache, device="cpu", ranks_per_host=ranks)
    planned = plan.peak_bytes(Space.DEVICE, Space.HOST)
    for of_rank in record.memory:
        workload = of_rank["peak_bytes"] - of_rank["baseline_bytes"]
        assert planned[of_rank["rank"]] == pytest.approx(workload, rel=0.1)
