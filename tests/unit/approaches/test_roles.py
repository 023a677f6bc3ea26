"""Ranks that sample for others: who draws what, how far ahead, and what the plan says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench import work
from gnnbench.approaches.mini_batch.role_writer import turn_of
from gnnbench.approaches.mini_batch.roles import CREDITS, Roles
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Space, Step

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
BATCH = {"size": 50, "fanouts_from_seeds": (3, 2)}
SMALL = st.integers(1, 5)


@pytest.fixture(scope="module")
def planted() -> Graph:
    """300 vertices, 180 of them training ones: 4 steps of 50 seeds."""
    return planted_partition(300, 6, 4, 5, seed=1)


@pytest.fixture
def planned(make_run: MakeRun, plan_of: PlanOf, planted: Graph) -> Callable[..., Plan]:
    def make(ranks: int, device: str = "cpu", **knobs: Any) -> Plan:
        return plan_of(planted, make_run("sampled", ranks, batch=BATCH, **knobs), device=device)

    return make


def steps_of(plan: Plan, place: int, rank: int) -> list[Step]:
    return list(plan.iterations[plan.schedule[place]][rank])


# Who draws what


@given(trainers=SMALL, samplers=SMALL, queue=SMALL, steps=SMALL)
def test_every_batch_is_drawn_once_by_the_sampler_of_its_number(
    trainers: int, samplers: int, queue: int, steps: int
) -> None:
    roles = Roles(trainers=trainers, samplers=samplers, queue=queue, steps=steps)
    drawn = [
        (number, rank)
        for step in range(steps)
        for rank in roles.groups[1]
        for number in roles.drawn_by(rank, step)
    ]
    assert sorted(number for number, _ in drawn) == list(range(steps * trainers))
    assert all(roles.sampler_of(number) == rank for number, rank in drawn)


@given(trainers=SMALL, samplers=SMALL, queue=SMALL, steps=SMALL)
def test_every_credit_is_taken_once_and_none_before_it_could_be_given(
    trainers: int, samplers: int, queue: int, steps: int
) -> None:
    roles = Roles(trainers=trainers, samplers=samplers, queue=queue, steps=steps)
    for rank in roles.groups[1]:
        own = [n for step in range(steps) for n in roles.drawn_by(rank, step)]
        taken = [roles.awaited(number) for number in own]
        early = [number for number in taken if number is not None]
        assert early + list(roles.unclaimed(rank)) == own
        for place, awaited in enumerate(taken):
            assert awaited == (own[place - queue] if place >= queue else None)


@given(trainers=SMALL, samplers=SMALL, queue=SMALL, prefetch=st.integers(0, 2))
def test_steps_of_one_turn_deal_alike(
    trainers: int, samplers: int, queue: int, prefetch: int
) -> None:
    roles = Roles(trainers=trainers, samplers=samplers, queue=queue, steps=40)

    def dealt(step: int) -> list[Any]:
        return [
            [
                (roles.trainer_of(n), a if (a := roles.awaited(n)) is None else roles.trainer_of(a))
                for n in roles.drawn_by(rank, step)
            ]
            for rank in roles.groups[1]
        ]

    for step in range(40):
        turn = turn_of(roles, step, prefetch)
        assert dealt(turn.step) == dealt(step)
        assert turn.last == (step == 39)


# What the plan says


def test_trainers_do_the_work_of_as_many_ranks_without_samplers(
    planned: Callable[..., Plan],
) -> None:
    plain, apart = planned(2), planned(3, samplers=1)
    assert apart.periods == plain.periods
    for place in range(8):
        for rank in range(2):
            of_plain = {s.name: s.work for s in steps_of(plain, place, rank)}
            of_trainer = {s.name: s.work for s in steps_of(apart, place, rank)}
            drawn = of_plain.pop("sample/draw")
            assert {name: of_trainer[name] for name in of_plain} == of_plain
            sampler = {s.name: s.work for s in steps_of(apart, place, 2)}
            assert sampler[f"sample/draw/{rank}"] == drawn


def test_blocks_are_sent_point_to_point_in_closed_form(planned: Callable[..., Plan]) -> None:
    plan, plain = planned(5, samplers=2), planned(3)
    total = 0
    for place in range(4):
        for rank in range(3):
            of = {s.name: s.work for s in steps_of(plain, place, rank)}
            first, last = of["forward/1/spmm"], of["forward/2/spmm"]
            n, e = (first.source_rows, first.rows, last.rows), (first.nonzeros, last.nonzeros)
            total += work.message_bytes(n, e) + 8 * (6 + 1)  # header and credit
    assert plan.moved_bytes(0)["send", "sample"] == total
    assert plan.moved_bytes(0)["recv", "sample"] == 0
    # The gradient travels among three trainers only; then 4 ranks hear the loss.
    parameters = plan.notes["num_parameters"]
    assert isinstance(parameters, int)
    reduced = 4 * 3 * work.all_reduce_bytes(4 * (parameters + 1), 3)
    assert plan.moved_bytes(0)["all_reduce", "sync"] == reduced
    assert plan.moved_bytes(0)["broadcast", "sync"] == 4 * 4


def test_samplers_hold_the_topology_and_trainers_all_else(planned: Callable[..., Plan]) -> None:
    held = {b.name: np.asarray(b.bytes) for b in planned(3, samplers=1).resident}
    for name in ("topology", "sampler", "train_nodes"):
        assert held[name][:2].tolist() == [0, 0]
        assert held[name][2] > 0
    for name in ("features", "labels", "parameters"):
        assert held[name][2] == 0
        assert (held[name][:2] > 0).all()


def test_on_accelerators_blocks_travel_through_device_memory(
    planned: Callable[..., Plan],
) -> None:
    plan = planned(3, device="cuda", samplers=1)
    sampler, trainer = steps_of(plan, 0, 2), steps_of(plan, 0, 0)
    assert [s.name for s in sampler if s.lane is Lane.COPY] == [
        "sample/to_device/0",
        "sample/to_device/1",
    ]
    copies = [s.name for s in trainer if s.lane is Lane.COPY]
    assert copies == ["sample/to_host", "fetch/copy"]
    rooms = {b.name: b.space for s in sampler for b in s.allocates}
    assert (rooms["drawn"], rooms["messages"]) == (Space.HOST, Space.DEVICE)


def test_credits_have_a_lane_of_their_own(planned: Callable[..., Plan]) -> None:
    plan = planned(3, samplers=1, queue=1)
    for rank, kind in ((0, Kind.SEND), (2, Kind.RECV)):
        found = [s for p in range(4) for s in steps_of(plan, p, rank) if s.lane is CREDITS]
        assert len(found) == 4 if rank == 0 else 8
        assert {s.kind for s in found} == {kind}


def test_a_profile_is_planned_too(make_run: MakeRun, plan_of: PlanOf) -> None:
    run = make_run("sampled", 4, batch={"size": 1024}, samplers=1, placement="partitioned")
    plan = plan_of(load_profile("reddit"), run)
    assert not plan.counted
    assert len(plan.iterations) < 10  # of 151 steps in an epoch
    held = {b.name: np.asarray(b.bytes) for b in plan.resident}
    assert held["features"].tolist()[3] == 0


# What it cannot do


def test_a_rank_must_be_left_to_train(make_run: MakeRun) -> None:
    card = APPROACHES.get("sampled")
    reason = card.cannot_run(make_run("sampled", 2, batch=BATCH, samplers=2))
    assert reason is not None
    assert "2 of 2 ranks are samplers" in reason


def test_trainers_cannot_plan_a_cache_for_batches_that_they_do_not_know(
    make_run: MakeRun,
) -> None:
    card = APPROACHES.get("sampled")
    asked = {"placement": "host", "cache_policy": "planned", "samplers": 1}
    [line] = card.problems(make_run("sampled", 2, batch=BATCH, **asked))
    assert line.startswith("knobs.cache_policy: found 'planned' with 1 samplers")
