"""The replay and the engine are two executions of one semantics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.cluster import OpModel
from gnnbench.errors import Unsupported
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan
from gnnbench.steps import LATEST, After, Kind, Lane
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

LANES = (Lane.COMPUTE, Lane.HOST, Lane.COMM, Lane.BACKGROUND)


def _iteration(draw: Any, kit: Any, world: int, tag: str) -> Iteration:
    """Random steps; ranks share the collectives, not the work between them.

    Every rank has a step "start" in every iteration, for which waits of any lag are valid.
    """
    halves = [tuple(range(world // 2)), tuple(range(world // 2, world))]
    everyone = tuple(range(world))
    ranks: list[list[Any]] = [[kit.work("start", draw(st.integers(0, 5)))] for _ in range(world)]
    for number in range(draw(st.integers(1, 6))):
        if world > 1 and draw(st.booleans()):
            split = world > 3 and draw(st.booleans())
            size, lane = draw(st.integers(0, 20)), draw(st.sampled_from(LANES))
            casts, root = draw(st.booleans()), draw(st.integers(0, 5))
            for rank in range(world):
                group = halves[rank >= world // 2] if split else everyone
                where = {"lane": lane, "after": _waits(draw, ranks[rank])}
                name, sender = f"{tag}m{number}", group[root % len(group)]
                ranks[rank].append(
                    kit.cast(name, group, size, rank, sender, **where)
                    if casts
                    else kit.meet(name, group, size, **where)
                )
        else:
            for rank in range(world):
                if draw(st.integers(0, 4)) == 0:
                    continue  # a rank may lack a step: then it is of another class
                lane, after = draw(st.sampled_from(LANES)), _waits(draw, ranks[rank])
                seconds = draw(st.integers(0, 9))
                ranks[rank].append(kit.work(f"{tag}w{number}", seconds, lane=lane, after=after))
    return Iteration.of_ranks(ranks)


def _waits(draw: Any, before: list[Any]) -> tuple[After, ...]:
    if draw(st.booleans()):
        return ()
    name = draw(st.sampled_from(before)).name
    lags = (0, 1, 2, 3, LATEST) if name == "start" else (0, LATEST)
    return (After(name, draw(st.sampled_from(lags))),)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_plans_take_the_same_time(kit: Any, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, 6))
    tags = "ab"[: data.draw(st.integers(1, 2))]
    iterations = [_iteration(data.draw, kit, world, tag) for tag in tags]
    schedule = data.draw(st.lists(st.integers(0, len(tags) - 1), min_size=4, max_size=4))
    releases = data.draw(st.lists(st.integers(0, 40), min_size=4, max_size=4) | st.just([]))
    plan = Plan(
        approach="random",
        world_size=world,
        iterations=iterations,
        schedule=schedule,
        periods=data.draw(st.sampled_from([(2, 2), (1, 3), (4,)])),
        releases=releases,
    )
    gap = OpModel(
        op="gap",
        kind="host",
        form="gap",
        params={"t0_s": 0.25, "cold_s": 0.5, "cache_bytes": 4.0},
    )
    gaps = (gap,) if data.draw(st.booleans()) else ()
    program = compile_plan(plan, kit.cluster(ops=(*kit.cluster().ops, *gaps)))
    slow, fast = simulate(program, record=range(world)), None
    try:
        fast = replay(program, record=range(world))
    except Unsupported:
        pytest.fail("the engine did it, so the replay must find an order")
    np.testing.assert_allclose(fast.period_s, slow.period_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fast.end_s, slow.end_s, rtol=1e-9, atol=1e-9)
    for lane in slow.busy_s:
        np.testing.assert_allclose(fast.busy_s[lane], slow.busy_s[lane], rtol=1e-9, atol=1e-9)
    for rank in range(world):
        assert _table(program, fast, rank) == _table(program, slow, rank)


def _table(program: Any, result: Any, rank: int) -> list[Any]:
    rows = ledger(program, result, rank)
    return sorted(
        (r.iteration, r.period, r.name, round(r.start_s, 6), round(r.duration_s, 6)) for r in rows
    )


def test_fusing_blocks_changes_no_time(kit: Any) -> None:
    group = (0, 1)
    ranks = [
        (
            kit.work("a", 2),
            kit.work("b", r),
            kit.meet("m", group, after=(After("b"),)),
            kit.work("c", 4, after=(After("m"),)),
            kit.work("d", 1),
        )
        for r in (1, 5)
    ]
    plan = kit.plan(*ranks, periods=3)
    times = [
        simulate(compile_plan(plan, kit.cluster(), fuse=fuse)).period_s.tolist()
        for fuse in (True, False)
    ]
    assert times[0] == times[1] == [13.0, 13.0, 13.0]


def test_draws_scale_the_times_of_their_class(kit: Any) -> None:
    plan = kit.plan(
        (kit.work("a", 4), kit.meet("m", (0, 1), 10, after=(After("a"),))),
        (kit.work("a", 6), kit.meet("m", (0, 1), 10, after=(After("a"),))),
    )
    program = compile_plan(plan, kit.cluster())
    factors = {"work": np.array([1.0, 2.0]), "all_reduce": np.array([1.0, 3.0])}
    assert replay(program, factors=factors).period_s.tolist() == [[8.0, 18.0]]


def test_the_replay_declines_transfers_that_share_links(kit: Any) -> None:
    message = kit.meet("s", (0, 1), 4, kind=Kind.SEND), kit.meet("r", (0, 1), 4, kind=Kind.RECV)
    with pytest.raises(Unsupported, match="share links"):
        replay(compile_plan(kit.plan((message[0],), (message[1],)), kit.cluster()))
