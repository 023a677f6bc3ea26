"""Feature caches on ranks: exact copies, counted as planned (sampling invariants P5, P7)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.mini_batch.caches import POLICIES
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.pool import Pools

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
DATA = Library([]).open(example("sampled").dataset)
CACHED = [policy for policy in POLICIES if policy != "none"]


def run_of(ranks: int, **knobs: Any) -> RunSpec:
    return example("sampled", ranks, batch=FEW, model={"dropout": 0.3}, knobs=knobs)


def fetched(rows: list[Any]) -> int:
    return sum(row.bytes for row in rows if row.name == "fetch/rows")


@pytest.mark.distributed
@pytest.mark.parametrize("placement", ["host", "partitioned"])
def test_results_do_not_depend_on_the_cache(placement: str, pools: Pools) -> None:
    """P5: bit for bit; and fewer bytes travel."""
    plain = run_of(2, placement=placement)
    wanted = pools.of(2).run("cases:train_sampled", DATA, plain)
    for policy in CACHED:
        run = run_of(2, placement=placement, cache_policy=policy, cache_share=0.4)
        for got, without in zip(
            pools.of(2).run("cases:train_sampled", DATA, run), wanted, strict=True
        ):
            assert got["losses"] == without["losses"]
            np.testing.assert_array_equal(got["parameters"], without["parameters"])
            assert got["metrics"] == without["metrics"]
            assert fetched(got["ledger"]) < fetched(without["ledger"])


@pytest.mark.distributed
@pytest.mark.parametrize("policy", CACHED)
def test_hits_are_counted_as_planned(policy: str, pools: Pools) -> None:
    """P7: hits, misses and fetched bytes are the integers of the plan, in every epoch."""
    for ranks, placement in ((1, "host"), (2, "partitioned")):
        run = run_of(ranks, placement=placement, cache_policy=policy, cache_share=0.3, prefetch=1)
        approach = APPROACHES.get("sampled")
        layout = Layout(world_size=ranks, ranks_per_host=ranks)
        plan = approach.plan(DATA, run, approach.structure(DATA, run), layout)
        found = pools.of(ranks).run("cases:train_cached", DATA, run)
        counted = [(m["cache_hits"], m["cache_misses"]) for m in found[0]["counts"]]
        planned = zip(plan.notes["cache_hits"], plan.notes["cache_misses"], strict=True)
        assert counted == list(planned)
        row = DATA.num_features * 8
        rows = sum(fetched(of["ledger"]) for of in found)
        assert rows == sum(plan.notes["cache_misses"]) * row


def test_a_cache_that_is_resumed_or_asked_twice_gives_the_same_rows() -> None:
    """Batches out of order empty the cache; their rows are right all the same."""
    run = run_of(1, placement="host", cache_policy="planned", cache_share=0.3)
    trainer, recorder, _ = cases.make_trainer(0, 1, run, DATA)
    plain, other, _ = cases.make_trainer(0, 1, dataclasses.replace(run, knobs={}), DATA)
    for period in (0, 2, 0):
        recorder.period_begin(period)
        other.period_begin(period)
        pairs = zip(trainer.batches.of_period(period), plain.batches.of_period(period), strict=True)
        for got, wanted in pairs:
            np.testing.assert_array_equal(got.x.numpy(), wanted.x.numpy())
