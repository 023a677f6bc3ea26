"""Plans of `sampled` whose features lie on the host or with other owners, with and without caches.

Sampling invariants P5 and P7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import example
from gnnbench.approaches.mini_batch import batch as batches
from gnnbench.approaches.mini_batch.caches import POLICIES, STATIC, Ahead, best_rows
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.dealing import Dealt, undivided
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile, profile
from gnnbench.data.sampling import Batch
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Space, Step, pick

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
CACHES = [policy for policy in POLICIES if policy != "none"]


@pytest.fixture(scope="module")
def planted() -> Graph:
    """300 vertices, 180 of them training ones; 5 features, 4 classes."""
    return planted_partition(300, 6, 4, 5, seed=1)


@pytest.fixture
def planned(plan_of: PlanOf, make_run: MakeRun, planted: Graph) -> PlanOf:
    """Return a maker of plans of two epochs of four batches."""

    def make(ranks: int = 1, device: str = "cpu", data: Any = planted, **knobs: Any) -> Plan:
        batch = {"size": 50, "fanouts_from_seeds": (3, 2)}
        return plan_of(data, make_run("sampled", ranks, batch=batch, **knobs), device=device)

    return make


def by_name(plan: Plan, place: int = 0, rank: int = 0) -> dict[str, Step]:
    return {step.name: step for step in plan.iterations[plan.schedule[place]][rank]}


def fetched(plan: Plan) -> int:
    """Bytes of rows that travel in the whole run."""
    found = 0
    for period in range(plan.num_periods):
        for iteration in plan.of_period(period):
            found += sum(
                step.bytes for steps in iteration for step in steps if step.name == "fetch/rows"
            )
    return found


# Features in the host's memory


def test_rows_on_the_host_are_gathered_there_and_copied(planned: PlanOf) -> None:
    steps = by_name(planned(placement="host"))
    rows = steps["sample/draw"].work.source_rows
    assert steps["fetch/stage"].op == "gather_host"
    assert (steps["fetch/rows"].kind, steps["fetch/rows"].lane) == (Kind.COPY, Lane.COPY)
    assert steps["fetch/rows"].bytes == rows * 5 * 4


def test_the_host_gathers_beside_a_device_and_on_the_cpus_own_lane(planned: PlanOf) -> None:
    assert by_name(planned(placement="host"))["fetch/stage"].lane is Lane.COMPUTE
    assert by_name(planned(placement="host", device="cuda"))["fetch/stage"].lane is Lane.HOST


def test_a_device_holds_the_cache_and_the_batches_only(planned: PlanOf) -> None:
    """A table of 107 TB of which a device of 80 GB caches a ten-thousandth."""
    wide = replace(load_profile("ogbn-products"), num_features=10_900_000)
    replicated, host = (
        planned(data=wide, device="cuda", **knobs)
        for knobs in (
            {},
            {"placement": "host", "cache_policy": "degree", "cache_share": 1e-5},
        )
    )
    table = wide.num_nodes * wide.num_features * 4
    assert replicated.peak_bytes()[0] > table
    cache = next(b.bytes for b in host.resident if b.name == "feature_cache")
    assert cache == 24 * wide.num_features * 4
    assert host.peak_bytes()[0] < table / 500
    assert host.peak_bytes(Space.HOST)[0] > table


def test_ranks_of_a_host_share_its_mapped_table(planned: PlanOf, planted: Graph) -> None:
    held = {b.name: b for b in planned(2, "cuda", placement="host").resident}["features"]
    assert (held.space, held.bytes) == (Space.HOST, 300 * 5 * 4 // 2)
    assert {b.name: b for b in planned(2, placement="host").resident}["features"].bytes == 6000


# Caches


@pytest.mark.parametrize("policy", CACHES)
@pytest.mark.parametrize("placement", ["host", "partitioned"])
def test_hits_and_misses_are_the_rows_that_a_rank_would_fetch(
    planned: PlanOf, policy: str, placement: str
) -> None:
    plain = planned(2, placement=placement)
    plan = planned(2, placement=placement, cache_policy=policy, cache_share=0.3)
    hits, misses = (np.array(plan.notes[f"cache_{name}"]) for name in ("hits", "misses"))
    row = 5 * 4
    assert (hits.sum() + misses.sum()) * row == fetched(plain)
    assert misses.sum() * row == fetched(plan)
    assert hits[1] > 0


@pytest.mark.parametrize("policy", CACHES)
def test_fetched_rows_are_merged_and_few_enter_the_cache(planned: PlanOf, policy: str) -> None:
    plan = planned(placement="host", cache_policy=policy, cache_share=0.2)
    capacity, entered = 60, 0
    for place in range(8):
        steps = by_name(plan, place)
        assert steps["fetch/hits"].work.source_rows == capacity
        assert steps["fetch/merge"].work.rows == steps["fetch/stage"].work.rows
        entered += steps["fetch/cache"].work.rows
    if policy in STATIC:
        assert entered <= capacity  # it fills once


def test_a_cache_of_all_rows_fetches_each_once(planned: PlanOf) -> None:
    for policy in ("lru", "planned"):
        plan = planned(placement="host", cache_policy=policy, cache_share=1.0)
        rows = fetched(plan) // 20
        assert rows <= 300
        assert plan.notes["cache_misses"][1] <= 300 - plan.notes["cache_misses"][0]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("ranks", [1, 2])
def test_planned_fetches_no_more_than_any_other_cache_of_its_size(
    planned: PlanOf, share: float, ranks: int
) -> None:
    """With every batch known. What a static cache fills itself with is counted."""
    placement = "host" if ranks == 1 else "partitioned"
    found = {
        policy: fetched(
            planned(
                ranks,
                placement=placement,
                cache_policy=policy,
                cache_share=share,
                lookahead=1000,
            )
        )
        for policy in CACHES
    }
    assert found["planned"] == min(found.values())
    assert found["planned"] < fetched(planned(ranks, placement=placement))


def test_batches_are_drawn_before_their_turn_and_drawn_once(planned: PlanOf) -> None:
    knobs = {"placement": "host", "cache_policy": "planned"}
    plain = planned(placement="host")
    plan = planned(**knobs, lookahead=3)
    each = [by_name(plain, place)["sample/draw"].work.nonzeros for place in range(8)]
    drawn = [by_name(plan, place)["sample/draw"].work.nonzeros for place in range(8)]
    assert drawn == [sum(each[:4]), *each[4:], 0, 0, 0]
    room = by_name(plan)["sample/draw"].allocates
    assert {buffer.name for buffer in room} == {"blocks", "scratch", "waiting_batches"}


def test_a_cache_before_rows_that_are_here_is_refused(make_run: MakeRun) -> None:
    card = APPROACHES.get("sampled")
    [line] = card.problems(make_run("sampled", cache_policy="lru"))
    assert "cache_policy" in line
    assert "'host' or 'partitioned'" in line
    assert not card.problems(make_run("sampled", cache_policy="lru", placement="host"))


def test_a_rank_never_caches_its_own_rows(planted: Graph) -> None:
    owner = (np.arange(300) % 3).astype(np.int32)
    chosen = best_rows(planted.out_degrees().astype(float), 50, 1, owner)
    assert len(chosen) == 50
    assert set(owner[chosen]) == {0, 2}
    assert best_rows(np.zeros(300), 50, 1, owner).size == 0


def test_beyond_the_budget_static_caches_are_full_from_the_start(
    planned: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "DRAWN_EDGES", 10)
    for policy in CACHES:
        plan = planned(placement="host", cache_policy=policy, cache_share=0.3)
        assert not plan.counted
        entered = sum(by_name(plan, place)["fetch/cache"].work.rows for place in range(4))
        assert (entered == 0) == (policy in STATIC)


def test_batches_out_of_order_start_with_an_empty_queue() -> None:
    made = []

    def draw(epoch: int, step: int) -> Dealt:
        made.append((epoch, step))
        seeds = np.array([0])
        return undivided(Batch(blocks=(), input_nodes=seeds, seeds=seeds), 1)

    ahead = Ahead(draw, steps=3, total=6, lookahead=2)
    ahead.take(0, 0)
    assert made == [(0, 0), (0, 1), (0, 2)]
    ahead.take(0, 1)
    assert made[3:] == [(1, 0)]
    ahead.take(1, 1)
    assert made[4:] == [(1, 1), (1, 2)]


# Without the graph


@pytest.mark.parametrize("placement", ["host", "partitioned"])
@pytest.mark.parametrize("policy", CACHES)
def test_a_profile_predicts_hits_from_chances_of_inclusion(
    planned: PlanOf, placement: str, policy: str
) -> None:
    """On a graph whose edges lie at random; the estimate is of a warm cache."""
    graph = planted_partition(3000, 12, 4, 5, seed=3, homophily=0.3)
    known = profile(graph, parts=(), fanouts=((3, 2),), batch=25)
    knobs = {
        "placement": placement,
        "cache_policy": policy,
        "cache_share": 0.3,
        "partitioner": "hash",
        "lookahead": 10,
    }
    plan, counted = planned(2, data=known, **knobs), planned(2, data=graph, **knobs)
    assert not plan.counted

    def rate(of: Plan) -> float:
        hits, misses = of.notes["cache_hits"][-1], of.notes["cache_misses"][-1]
        return hits / (hits + misses)

    assert rate(plan) == pytest.approx(rate(counted), abs=0.03)
    steps = by_name(plan)
    assert pick(steps["fetch/hits"].work.source_rows, 0) == 900


def test_examples_have_every_policy() -> None:
    runs = APPROACHES.get("sampled").examples()
    assert {run.knobs.get("cache_policy", "none") for run in runs} == set(POLICIES)
    assert example("sampled").knobs == {}
