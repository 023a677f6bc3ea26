"""Plans of sampled training: batches from the graph or its profile, fetches, prefetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.mini_batch.sampled import EXACT, Sampled, SampledStructure
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.data.sampling import NeighbourSampler, epoch_seeds, split_seeds
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Kind, Lane, Step
from gnnbench.work import all_reduce_bytes

MakeRun = Callable[..., RunSpec]


@pytest.fixture(scope="module")
def planted() -> Graph:
    """300 vertices, 180 of them training ones; 5 features, 4 classes."""
    return planted_partition(300, 6, 4, 5, seed=1)


def plan_of(graph: Graph | GraphProfile, run: RunSpec, approach: Sampled | None = None) -> Plan:
    approach = approach or APPROACHES.get("sampled")  # type: ignore[assignment]
    assert approach is not None
    structure = approach.structure(graph, run)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = approach.plan(graph, run, structure, layout)
    plan.validate()
    return plan


def by_name(plan: Plan, iteration: int = 0, rank: int = 0) -> dict[str, Step]:
    return {step.name: step for step in plan.iterations[iteration][rank]}


@pytest.fixture
def run(make_run: MakeRun) -> Callable[..., RunSpec]:
    def make(ranks: int = 1, **knobs: Any) -> RunSpec:
        given = {"batch_size": 50, "fanouts_from_seeds": [3, 2], **knobs}
        return make_run("sampled", ranks, **given)

    return make


# Counted batches


def test_an_epoch_has_a_step_per_batch_and_a_smaller_last_one(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    plan = plan_of(planted, run())
    assert (plan.iterations_per_epoch, plan.num_epochs) == (4, 2)  # 180 = 3 * 50 + 30
    losses = [by_name(plan, step)["forward/loss"] for step in range(4)]
    assert [step.rows for step in losses] == [50 * 4, 50 * 4, 50 * 4, 30 * 4]


def test_a_batch_has_the_sizes_that_the_sampler_draws(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    spec = run(2)
    plan = plan_of(planted, spec)
    sampler = NeighbourSampler(planted.indptr, planted.indices, (3, 2), spec.training.seed)
    order = epoch_seeds(planted.train_nodes(), spec.training.seed, 1)
    for rank in range(2):
        batch = sampler.sample(split_seeds(order[100:150], 2, rank), 1, 2)
        steps = by_name(plan, 4 + 2, rank)  # epoch 1, step 2
        first, last = batch.blocks
        assert steps["sample/draw"].nonzeros == len(first.indices) + len(last.indices)
        assert steps["sample/draw"].source_rows == first.num_src == len(batch.input_nodes)
        assert steps["forward/1/spmm"].rows == first.num_dst
        assert steps["forward/1/spmm"].nonzeros == len(first.indices)
        assert steps["forward/2/spmm"].source_rows == last.num_src
        assert steps["fetch/gather"].rows == len(batch.input_nodes)


def test_counted_batches_are_exact(planted: Graph, run: Callable[..., RunSpec]) -> None:
    plan = plan_of(planted, run())
    assert (plan.exact, plan.basis) == (True, EXACT)


class Frugal(Sampled):
    """Sampled with next to no budget for drawing."""

    dry_run_edges = 10


def test_beyond_the_budget_a_few_steps_stand_for_all_and_the_plan_says_so(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    spec = run(batch_size=10)  # 18 steps
    plan = plan_of(planted, spec, Frugal())
    assert not plan.exact
    assert plan.basis == "3 of 18 steps of the first epoch dry-run"
    assert len(plan.iterations) == 3
    assert (plan.iterations_per_epoch, plan.num_epochs) == (18, 1)
    whole = plan_of(planted, spec)
    drawn = [by_name(whole, step)["sample/draw"] for step in (0, 8, 17)]
    assert [by_name(plan, number)["sample/draw"] for number in range(3)] == drawn
    assert plan.schedule == (0,) * 8 + (1,) * 9 + (2,)


def test_a_budget_for_one_epoch_is_spent_on_a_whole_epoch(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    whole = plan_of(planted, run())
    edges = [by_name(whole, step)["sample/draw"].nonzeros for step in range(4)]

    class OneEpoch(Sampled):
        dry_run_edges = int(1.5 * sum(edges))

    plan = plan_of(planted, run(), OneEpoch())
    assert (plan.num_epochs, plan.exact) == (1, True)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_batch_size_beyond_the_training_set_is_one_step(
    planted: Graph, run: Callable[..., RunSpec], ranks: int
) -> None:
    assert plan_of(planted, run(ranks, batch_size=10_000)).iterations_per_epoch == 1


def test_a_graph_without_training_vertices_is_skipped_with_a_reason(
    path_graph: Graph, run: Callable[..., RunSpec]
) -> None:
    import dataclasses

    sampled = APPROACHES.get("sampled")
    bare = dataclasses.replace(path_graph, train_mask=np.zeros(5, bool))
    assert sampled.skip_reason(run(), path_graph) is None
    reason = sampled.skip_reason(run(), bare)
    assert reason == "the graph has no training vertices to draw batches from"


# Communication


def test_replicated_features_leave_only_the_gradients_to_send(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    plan = plan_of(planted, run(4))
    theta = 5 * 4 + 4 + 4 * 4 + 4
    ring = all_reduce_bytes(4 * (theta + 1), 4)
    assert plan.sent_bytes() == {("all_reduce", "sync"): 4 * 4 * ring}  # 4 ranks, 4 steps


def test_one_rank_sends_nothing_wherever_its_features_are(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    assert plan_of(planted, run(1, placement="partitioned")).sent_bytes() == {}


def test_fetched_rows_are_asked_for_by_id_and_served_by_their_owner(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    world = 3
    spec = run(world, placement="partitioned", partitioner="hash")
    plan = plan_of(planted, spec)
    for iteration in plan.iterations:
        steps = [{s.name: s for s in rank} for rank in iteration]
        ids = np.array([s["fetch/ids"].send_bytes for s in steps]) // 8
        rows = np.array([s["fetch/rows"].send_bytes for s in steps]) // (5 * 4)
        assert np.array_equal(rows, ids.T)
        assert np.all(np.diag(ids) == 0)
        for rank, named in enumerate(steps):
            assert named["fetch/counts"].bytes == 8 * (world - 1)
            own = named["fetch/place"].rows - ids[rank].sum()
            assert own >= 0
            assert named["fetch/gather"].rows == own + ids[:, rank].sum()
            assert named["fetch/place"].rows == named["sample/draw"].source_rows


def test_partitioned_features_are_held_once_over_all_ranks(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    plan = plan_of(planted, run(3, placement="partitioned", partitioner="hash"))
    assert planted.features is not None
    assert sum(held["features"] for held in plan.resident) == planted.features.nbytes
    whole = plan_of(planted, run(3))
    assert [held["features"] for held in whole.resident] == [planted.features.nbytes] * 3


def test_resident_bytes_are_those_of_the_arrays_a_rank_holds(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    (held,) = plan_of(planted, run()).resident
    indptr, indices = np.asarray(planted.indptr), np.asarray(planted.indices)
    assert held["topology"] == indptr.nbytes + indices.nbytes
    assert planted.labels is not None
    assert held["labels"] == planted.labels.nbytes
    # The training vertices and their order of the epoch.
    assert held["train_nodes"] == 2 * planted.train_nodes().nbytes


# Prefetch


def waits(plan: Plan, place: int) -> tuple[After, ...]:
    """What the sampling of the batch at this place of the schedule waits for."""
    steps = plan.iterations[plan.schedule[place]][0]
    return next(s for s in steps if s.name == "sample/draw").after


def test_without_prefetch_everything_happens_on_one_lane(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    plan = plan_of(planted, run(2, placement="partitioned"))
    lanes = {s.lane for s in plan.iterations[0][0]}
    assert lanes == {Lane.COMPUTE, Lane.COMM}
    assert waits(plan, 1) == ()


def test_prefetch_draws_on_the_host_and_fetches_in_the_background(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    steps = by_name(plan_of(planted, run(2, placement="partitioned", prefetch=2)))
    assert steps["sample/draw"].lane is Lane.HOST
    assert steps["fetch/rows"].lane is Lane.BACKGROUND
    assert steps["forward/1/spmm"].lane is Lane.COMPUTE
    assert steps["sync/gradients"].lane is Lane.COMM


def test_a_batch_is_drawn_as_many_updates_ahead_as_are_prefetched(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    plan = plan_of(planted, run(prefetch=2))
    # An epoch begins with an empty queue: its first batch waits for the epoch before.
    assert [waits(plan, place)[0].lag for place in range(8)] == [1, 3, 3, 3, 1, 3, 3, 3]
    assert {after.step for place in range(8) for after in waits(plan, place)} == {"update/adam"}


def test_prefetched_batches_need_room_for_all_of_them(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    none, two = (by_name(plan_of(planted, run(prefetch=p))) for p in (0, 2))
    for step, buffer in (("sample/draw", "blocks"), ("fetch/gather", "x")):
        assert dict(two[step].allocates)[buffer] == 3 * dict(none[step].allocates)[buffer]


@pytest.mark.parametrize("approach", [Sampled(), Frugal()])
def test_a_batch_that_stands_for_others_still_overlaps(
    planted: Graph, run: Callable[..., RunSpec], approach: Sampled
) -> None:
    plan = plan_of(planted, run(batch_size=10, prefetch=1), approach)
    assert [waits(plan, place)[0].lag for place in range(18)] == [1] + [2] * 17


def test_a_profiles_batches_overlap_too(run: Callable[..., RunSpec]) -> None:
    plan = plan_of(load_profile("reddit"), run(prefetch=1, batch_size=50_000))
    assert [waits(plan, place)[0].lag for place in range(4)] == [1, 2, 2, 2]
    assert len(plan.iterations) == 2


# Profiles


def test_a_profiles_batches_are_estimated_and_say_from_what(run: Callable[..., RunSpec]) -> None:
    plan = plan_of(load_profile("reddit"), run(4))
    assert not plan.exact
    assert plan.basis == "frontier estimated from degrees of profile reddit"
    assert plan.iterations_per_epoch == -(-153431 // 50)
    assert len(plan.iterations) == 1


def test_a_profiles_ranks_share_the_batch(run: Callable[..., RunSpec]) -> None:
    plan = plan_of(load_profile("reddit"), run(4, batch_size=1000))
    assert by_name(plan)["forward/loss"].rows == 250 * 41
    assert all(steps == plan.iterations[0][0] for steps in plan.iterations[0])


def test_a_profiles_fetches_are_spread_evenly_over_owners(run: Callable[..., RunSpec]) -> None:
    plan = plan_of(load_profile("reddit"), run(4, placement="partitioned"))
    for rank in range(4):
        steps = by_name(plan, rank=rank)
        sent = [b for peer, b in enumerate(steps["fetch/rows"].send_bytes) if peer != rank]
        assert len(set(sent)) == 1
        assert steps["fetch/rows"].send_bytes[rank] == 0


def test_a_profile_of_the_graph_predicts_nearly_its_batches(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    from gnnbench.data.profile import profile

    spec = run(batch_size=30)
    known = profile(planted, parts=(), fanouts=((3, 2),), batch=30)
    estimated = by_name(plan_of(known, spec))["sample/draw"]
    counted = [steps[0][0] for steps in plan_of(planted, spec).iterations]
    assert estimated.nonzeros == pytest.approx(np.mean([s.nonzeros for s in counted]), rel=0.05)
    assert estimated.source_rows == pytest.approx(
        np.mean([s.source_rows for s in counted]), rel=0.05
    )


def test_structure_names_the_owner_only_where_features_are_partitioned(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    sampled = APPROACHES.get("sampled")
    assert sampled.structure(planted, run(2)) == SampledStructure(num_steps=4)
    owned = sampled.structure(planted, run(2, placement="partitioned"))
    assert owned.owner is not None
    assert owned.owned_rows == tuple(np.bincount(owned.owner).tolist())


def test_the_kinds_of_a_batch_come_in_the_order_of_work(
    planted: Graph, run: Callable[..., RunSpec]
) -> None:
    kinds = [s.kind for s in plan_of(planted, run(2)).iterations[0][0]]
    assert kinds[:3] == [Kind.SAMPLE, Kind.SAMPLE, Kind.GATHER]
    assert kinds[-2:] == [Kind.ALL_REDUCE, Kind.OPTIMIZER]
