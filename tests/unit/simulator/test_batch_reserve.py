"""Reserved memory over runs: batches differ, and the allocator keeps what the worst took."""

from __future__ import annotations

import dataclasses

import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_simulator.batch_reserve import reserved_over_batches
from gnnbench_simulator.session import predict_on

RUN = RunSpec(
    suite="made",
    dataset=DatasetRef(name="ogbn-products", profile="ogbn-products"),
    model=ModelSpec(name="sage", kind="sage", hidden=128, layers=2),
    batch=BatchSpec(size=1024, fanouts_from_seeds=(10, 5)),
    training=TrainingSpec(epochs=2),
    approach="sampled",
    ranks=1,
)


def plan_of(run: RunSpec) -> Plan:
    card, data = APPROACHES.get(run.approach), load_profile("ogbn-products")
    layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
    return card.plan(data, run, card.structure(data, run), layout)


def test_small_batches_of_a_profile_vary_more_than_large_ones() -> None:
    plan = plan_of(RUN)
    few, many = (reserved_over_batches(plan, 0, seeds=n) for n in (16, 4096))
    assert few[0] < few[-1]
    assert few[-1][0] - few[0][0] > many[-1][0] - many[0][0]
    assert few == tuple(sorted(few))
    # Segments in which nothing lives can be given back.
    assert all(0 < held <= reserved for reserved, held in (*few, *many))
    assert few == reserved_over_batches(plan, 0, seeds=16)  # deterministic


def test_batches_that_cannot_differ_have_no_distribution() -> None:
    plan = plan_of(RUN)
    assert reserved_over_batches(plan, 0, seeds=0) == ()
    once = dataclasses.replace(RUN, batch=BatchSpec(size=10**6, fanouts_from_seeds=(10, 5)))
    assert reserved_over_batches(plan_of(once), 0, seeds=10**6) == ()


def test_a_prediction_says_what_runs_reserve() -> None:
    found = predict_on(
        RUN, load_profile("ogbn-products"), load_cluster("p3.2xlarge"), ranks_per_host=1
    )
    low, middle, high = found.memory[0]["reserved_quantiles_bytes"]
    assert low <= middle <= high
    assert high == pytest.approx(found.memory[0]["reserved_bytes"], rel=0.3)
    assert 0.0 <= found.memory[0]["spaces"]["device memory"]["p_out_of_memory"] <= 1.0
