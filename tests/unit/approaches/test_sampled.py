"""Plans of sampled training: batches from the graph or its profile, fetches, prefetch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.mini_batch import batch as batches
from gnnbench.approaches.mini_batch.batch import COUNTED
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile, profile
from gnnbench.data.sampling import NeighbourSampler, epoch_seeds, split_seeds
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Kind, Lane, Step, pick
from gnnbench.work import all_reduce_bytes

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]


@pytest.fixture(scope="module")
def planted() -> Graph:
    """300 vertices, 180 of them training ones; 5 features, 4 classes."""
    return planted_partition(300, 6, 4, 5, seed=1)


@pytest.fixture
def run(make_run: MakeRun) -> MakeRun:
    """Return a maker of runs in batches of 50 seeds: 4 steps an epoch."""

    def make(ranks: int = 1, size: int = 50, **knobs: Any) -> RunSpec:
        batch = {"size": size, "fanouts_from_seeds": (3, 2)}
        return make_run("sampled", ranks, batch=batch, **knobs)

    return make


@pytest.fixture
def planned(plan_of: PlanOf, run: MakeRun, planted: Graph) -> PlanOf:
    """Return a maker of plans of such runs; on the planted graph unless told."""

    def make(ranks: int = 1, size: int = 50, device: str = "cpu", **knobs: Any) -> Plan:
        data = knobs.pop("data", planted)
        return plan_of(data, run(ranks, size, **knobs), device=device)

    return make


def by_name(plan: Plan, place: int = 0, rank: int = 0) -> dict[str, Step]:
    """The steps at a place of the schedule."""
    return {step.name: step for step in plan.iterations[plan.schedule[place]][rank]}


def held(plan: Plan, rank: int = 0) -> dict[str, int]:
    return {buffer.name: pick(buffer.bytes, rank) for buffer in plan.resident}


# Counted batches


def test_an_epoch_has_a_step_per_batch_and_a_smaller_last_one(planned: PlanOf) -> None:
    plan = planned()
    assert list(plan.periods) == [4, 4]  # 180 = 3 * 50 + 30
    losses = [by_name(plan, step)["forward/loss"].work for step in range(4)]
    assert [loss.rows for loss in losses] == [50 * 4, 50 * 4, 50 * 4, 30 * 4]


def test_a_batch_has_the_sizes_that_the_sampler_draws(
    planted: Graph, run: MakeRun, plan_of: PlanOf
) -> None:
    spec = run(2)
    plan = plan_of(planted, spec)
    assert (plan.counted, plan.basis) == (True, COUNTED)
    sampler = NeighbourSampler(planted.indptr, planted.indices, (3, 2), spec.training.seed)
    order = epoch_seeds(planted.train_nodes(), spec.training.seed, 1)
    for rank in range(2):
        batch = sampler.sample(split_seeds(order[100:150], 2, rank), 1, 2)
        steps = {name: s.work for name, s in by_name(plan, 4 + 2, rank).items()}  # epoch 1, step 2
        first, last = batch.blocks
        assert steps["sample/draw"].nonzeros == len(first.indices) + len(last.indices)
        assert steps["sample/draw"].source_rows == first.num_src == len(batch.input_nodes)
        assert steps["forward/1/spmm"].rows == first.num_dst
        assert steps["forward/1/spmm"].nonzeros == len(first.indices)
        assert steps["forward/2/spmm"].source_rows == last.num_src
        assert steps["fetch/gather"].rows == len(batch.input_nodes)


def test_beyond_the_budget_a_few_steps_stand_for_all_and_the_plan_says_so(
    planned: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planned(size=10)
    monkeypatch.setattr(batches, "DRAWN_EDGES", 10)
    plan = planned(size=10)
    assert not plan.counted
    assert (plan.basis, plan.counted_periods) == ("3 of 18 steps of the first epoch drawn", 0)
    assert (list(plan.periods), len(plan.iterations)) == ([18, 18], 3)
    assert plan.schedule == ((0,) * 8 + (1,) * 9 + (2,)) * 2
    drawn = [by_name(whole, step)["sample/draw"].work for step in (0, 8, 17)]
    assert [by_name(plan, step)["sample/draw"].work for step in (0, 8, 17)] == drawn


def test_a_budget_for_one_epoch_is_spent_on_a_whole_epoch(
    planned: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planned()
    edges = [by_name(whole, step)["sample/draw"].work.nonzeros for step in range(4)]
    monkeypatch.setattr(batches, "DRAWN_EDGES", int(1.5 * sum(edges)))
    plan = planned()
    assert (len(plan.iterations), plan.num_periods, plan.counted) == (4, 2, False)
    assert plan.basis == "batches of 1 of 2 epochs drawn"
    # A run's bytes are compared with those of the epoch that was drawn, and with no others.
    assert plan.counted_periods == 1
    assert plan.moved_bytes(0) == whole.moved_bytes(0)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_batch_size_beyond_the_training_set_is_one_step(planned: PlanOf, ranks: int) -> None:
    assert list(planned(ranks, size=10_000).periods) == [1, 1]


def test_a_graph_without_training_vertices_is_skipped_with_a_reason(
    path_graph: Graph, run: MakeRun
) -> None:
    card = APPROACHES.get("sampled")
    bare = dataclasses.replace(path_graph, train_mask=np.zeros(5, bool))
    assert card.cannot_run(run(), path_graph) is None
    assert "no training vertices to draw batches from: give" in (card.cannot_run(run(), bare) or "")


# Communication


@pytest.mark.parametrize(
    ("ranks", "knobs", "rings"),
    [(4, {}, 4 * 4), (1, {"placement": "partitioned"}, 0)],  # 4 ranks, 4 steps
)
def test_without_fetches_only_gradients_travel(
    planned: PlanOf, ranks: int, knobs: dict[str, Any], rings: int
) -> None:
    theta = 5 * 4 + 4 + 4 * 4 + 4
    sent = rings * all_reduce_bytes(4 * (theta + 1), 4)
    moved = planned(ranks, **knobs).moved_bytes()
    assert moved == ({("all_reduce", "sync"): sent} if sent else {})


def test_fetched_rows_are_asked_for_by_id_and_served_by_their_owner(planned: PlanOf) -> None:
    world = 3
    plan = planned(world, placement="partitioned", partitioner="hash")
    for iteration in plan.iterations:
        ranks = [{step.name: step.work for step in steps} for steps in iteration]
        ids = np.array([named["fetch/ids"].send_bytes for named in ranks]) // 8
        rows = np.array([named["fetch/rows"].send_bytes for named in ranks]) // (5 * 4)
        assert np.array_equal(rows, ids.T)
        assert np.all(np.diag(ids) == 0)
        for rank, named in enumerate(ranks):
            assert named["fetch/counts"].bytes == 8 * (world - 1)
            own = named["fetch/place"].rows - ids[rank].sum()
            assert own >= 0
            assert named["fetch/gather"].rows == own + ids[:, rank].sum()
            assert named["fetch/place"].rows == named["sample/draw"].source_rows


# Memory


def test_resident_bytes_are_those_of_the_arrays_a_rank_holds(
    planned: PlanOf, planted: Graph
) -> None:
    kept = held(planned())
    indptr, indices = np.asarray(planted.indptr), np.asarray(planted.indices)
    assert planted.labels is not None and planted.features is not None
    assert kept["topology"] == indptr.nbytes + indices.nbytes
    assert kept["labels"] == planted.labels.nbytes
    assert kept["features"] == planted.features.nbytes
    # The training vertices and their order of the epoch.
    assert kept["train_nodes"] == 2 * planted.train_nodes().nbytes


def test_partitioned_features_are_held_once_over_all_ranks(planned: PlanOf, planted: Graph) -> None:
    plan = planned(3, placement="partitioned", partitioner="hash")
    assert planted.features is not None
    assert sum(held(plan, rank)["features"] for rank in range(3)) == planted.features.nbytes


def test_prefetched_batches_need_room_for_all_of_them(planned: PlanOf) -> None:
    none, two = (by_name(planned(prefetch=p)) for p in (0, 2))
    for step in ("sample/draw", "fetch/gather"):
        room, more = none[step].allocates[0], two[step].allocates[0]
        assert room.name in ("blocks", "x")
        assert more == room._replace(bytes=3 * room.bytes)


# Prefetch


def lags(plan: Plan, count: int) -> list[int]:
    """Per place of the schedule, how many updates ago the drawing of its batch waits for."""
    waits = [by_name(plan, place)["sample/draw"].after for place in range(count)]
    assert all(after == (After("update/adam", after[0].lag),) for after in waits)
    return [after[0].lag for after in waits]


def test_without_prefetch_everything_happens_on_one_lane(planned: PlanOf) -> None:
    plan = planned(2, placement="partitioned")
    assert {step.lane for step in plan.iterations[0][0]} == {Lane.COMPUTE, Lane.COMM}
    assert by_name(plan, 1)["sample/draw"].after == ()


def test_prefetch_draws_on_the_host_and_fetches_in_the_background(planned: PlanOf) -> None:
    steps = by_name(planned(2, placement="partitioned", prefetch=2))
    assert steps["sample/draw"].lane is Lane.HOST
    assert steps["fetch/rows"].lane is Lane.BACKGROUND
    assert steps["forward/1/spmm"].lane is Lane.COMPUTE
    assert steps["sync/gradients"].lane is Lane.COMM


def test_a_batch_is_drawn_as_many_updates_ahead_as_are_prefetched(planned: PlanOf) -> None:
    # An epoch begins with an empty queue: its first batch waits for the epoch before.
    assert lags(planned(prefetch=2), 8) == [1, 3, 3, 3, 1, 3, 3, 3]


@pytest.mark.parametrize("budget", [batches.DRAWN_EDGES, 10])
def test_a_batch_that_stands_for_others_still_overlaps(
    planned: PlanOf, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(batches, "DRAWN_EDGES", budget)
    assert lags(planned(size=10, prefetch=1), 18) == [1] + [2] * 17


def test_on_an_accelerator_the_blocks_are_copied_to_it(planned: PlanOf) -> None:
    steps = by_name(planned(prefetch=1, device="cuda"))
    copy, (blocks, _) = steps["fetch/copy"], steps["sample/draw"].allocates
    assert (copy.kind, copy.lane) == (Kind.COPY, Lane.COPY)
    assert 2 * copy.bytes == blocks.bytes  # one batch of the two that there is room for


# Profiles


def test_a_profiles_batches_are_estimated_and_shared_evenly(planned: PlanOf) -> None:
    plan = planned(4, data=load_profile("reddit"), size=1000)
    assert not plan.counted
    assert plan.basis == "frontier estimated from degrees of profile reddit"
    assert (list(plan.periods), len(plan.iterations)) == ([-(-153431 // 1000)] * 2, 1)
    assert by_name(plan)["forward/loss"].work.rows == 250 * 41
    assert len(plan.iterations[0].classes) == 1


def test_a_profiles_batches_overlap_too(planned: PlanOf) -> None:
    plan = planned(data=load_profile("reddit"), size=50_000, prefetch=1)
    assert (lags(plan, 4), len(plan.iterations)) == ([1, 2, 2, 2], 2)


def test_a_profiles_fetches_are_spread_evenly_over_owners(planned: PlanOf) -> None:
    plan = planned(4, data=load_profile("reddit"), placement="partitioned")
    for rank in range(4):
        sent = by_name(plan, rank=rank)["fetch/rows"].work.send_bytes.tolist()
        assert sent.pop(rank) == 0
        assert len(set(sent)) == 1


def test_a_profile_of_the_graph_predicts_nearly_its_batches(
    planned: PlanOf, planted: Graph
) -> None:
    known = profile(planted, parts=(), fanouts=((3, 2),), batch=30)
    estimated = by_name(planned(data=known, size=30))["sample/draw"].work
    plan = planned(size=30)
    counted = [by_name(plan, place)["sample/draw"].work for place in range(len(plan.schedule))]
    for size in ("nonzeros", "source_rows"):
        mean = np.mean([getattr(work, size) for work in counted])
        assert getattr(estimated, size) == pytest.approx(mean, rel=0.05)


def test_structure_names_the_owner_only_where_features_are_partitioned(
    planted: Graph, run: MakeRun
) -> None:
    card = APPROACHES.get("sampled")
    whole = card.structure(planted, run(2))
    assert (whole.num_steps, whole.owner, whole.owned_rows) == (4, None, None)
    owned = card.structure(planted, run(2, placement="partitioned"))
    assert owned.owned_rows.tolist() == np.bincount(owned.owner).tolist()


def test_the_kinds_of_a_batch_come_in_the_order_of_work(planned: PlanOf) -> None:
    kinds = [step.kind for step in planned(2).iterations[0][0]]
    assert kinds[:3] == [Kind.SAMPLE, Kind.SAMPLE, Kind.GATHER]
    assert kinds[-2:] == [Kind.ALL_REDUCE, Kind.OPTIMIZER]
