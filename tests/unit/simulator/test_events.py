"""Events alone and the engine are two executions of one semantics, contention included."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.errors import Unsupported
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.steps import After, Kind, Lane
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan

LANES = (Lane.COMPUTE, Lane.DENSE, Lane.HOST)
FIXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def _message(kit: Any, name: str, kind: Kind, rank: int, peer: int, size: int, **facts: Any) -> Any:
    lane = Lane.COMM if kind is Kind.SEND else Lane.BACKGROUND
    return kit.meet(name, (rank, peer), size, kind=kind, lane=lane, **facts)


def _ranks(draw: Any, kit: Any, world: int) -> tuple[Any, ...]:
    """Random work, reads, messages and collectives; no rank waits for a message sent later."""
    ranks: list[list[Any]] = [[] for _ in range(world)]

    def waits(rank: int) -> tuple[After, ...]:
        if not ranks[rank] or draw(st.booleans()):
            return ()
        return (After(draw(st.sampled_from(ranks[rank])).name, draw(st.integers(0, 2))),)

    for number in range(draw(st.integers(2, 8))):
        kinds = ("work", "message", "message", "read", "meet", "cast")
        what = draw(st.sampled_from(kinds))
        if what == "message" and world > 1:
            a, b = draw(st.permutations(range(world)))[:2]
            size = draw(st.integers(0, 9))
            send = _message(kit, f"s{number}", Kind.SEND, a, b, size, after=waits(a))
            ranks[a].append(send)
            ranks[b].append(_message(kit, f"r{number}", Kind.RECV, b, a, size))
        elif what == "meet" and world > 1:
            # In the background a transfer takes cores from other work.
            lane = Lane.BACKGROUND if number % 2 else Lane.COMM
            for rank in range(world):
                ranks[rank].append(kit.meet(f"m{number}", tuple(range(world)), 5, lane=lane))
        elif what == "cast" and world > 1:
            root, lane = draw(st.integers(0, world - 1)), LANES[number % 3]
            for rank in range(world):
                group, name = tuple(range(world)), f"c{number}"
                ranks[rank].append(kit.cast(name, group, 5, rank, root, lane=lane))
        else:
            for rank in range(world):
                seconds, lane = draw(st.integers(0, 9)), draw(st.sampled_from(LANES))
                ranks[rank].append(
                    kit.disk(f"d{number}", seconds, lane=Lane.DISK.at(number % 2))
                    if what == "read"
                    else kit.work(f"w{number}", seconds, lane=lane, after=waits(rank))
                )
    return tuple(tuple(steps) for steps in ranks)


@FIXED
@given(data=st.data())
def test_random_plans_take_the_same_time_by_events_and_by_the_engine(
    kit: Any, data: st.DataObject
) -> None:
    """Links, NICs, disks and cores are shared; 2 ranks on each host or all on one."""
    world = data.draw(st.integers(1, 6))
    host = dataclasses.replace(kit.cluster().host, cores=data.draw(st.sampled_from((2, 1000))))
    plan = Plan(
        approach="random",
        world_size=world,
        releases=(0.0, float(data.draw(st.integers(0, 30))), 0.0),
        **repeated([Iteration.of_ranks(_ranks(data.draw, kit, world))], 3),
    )
    program = compile_plan(
        plan, kit.cluster(host=host), ranks_per_host=data.draw(st.sampled_from((2, 6)))
    )
    slow, fast = simulate(program, record=range(world)), None
    fast = simulate_events(program, record=range(world))
    np.testing.assert_allclose(fast.period_s, slow.period_s, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(fast.end_s, slow.end_s, rtol=1e-7, atol=1e-7)
    assert fast.busy_s.keys() == slow.busy_s.keys()
    for lane in slow.busy_s:
        np.testing.assert_allclose(fast.busy_s[lane], slow.busy_s[lane], rtol=1e-9, atol=1e-9)
    for rank in range(world):
        assert _table(program, fast, rank) == _table(program, slow, rank)


def _table(program: Any, result: Any, rank: int) -> list[Any]:
    return sorted(
        (r.iteration, r.name, round(float(r.start_s), 4), round(float(r.duration_s), 4))
        for r in ledger(program, result, rank)
    )


def test_senders_share_the_link_of_their_receiver(kit: Any) -> None:
    """Two messages of 4 B over 1 B/s end together at 8 s; the third, begun at 8 s, has it all."""
    first = (_message(kit, "s1", Kind.SEND, 0, 2, 4),)
    second = (_message(kit, "s2", Kind.SEND, 1, 2, 4), _message(kit, "s3", Kind.SEND, 1, 2, 3))
    third = tuple(
        _message(kit, name, Kind.RECV, 2, peer, size)
        for name, peer, size in (("r1", 0, 4), ("r2", 1, 4), ("r3", 1, 3))
    )
    result = simulate_events(compile_plan(kit.plan(first, second, third), kit.cluster()))
    assert result.end_s.tolist() == [8.0, 11.0, 11.0]


def test_a_message_that_came_early_is_there_at_once(kit: Any) -> None:
    sender = (_message(kit, "s", Kind.SEND, 0, 1, 2),)
    late = (
        kit.work("w", 9),
        _message(kit, "r", Kind.RECV, 1, 0, 2, after=(After("w"),)),
        kit.work("v", 1, after=(After("r"),)),
    )
    result = simulate_events(compile_plan(kit.plan(sender, late), kit.cluster()))
    assert result.end_s.tolist() == [2.0, 10.0]


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [("lanes", "on several lanes"), ("circle", "in a cycle")],
)
def test_what_only_the_engine_can_do_is_declined(kit: Any, ranks: str, reason: str) -> None:
    sent = _message(kit, "s", Kind.SEND, 0, 1, 2)
    steps = {
        "lanes": (
            (sent, dataclasses.replace(sent, name="t", lane=Lane.BACKGROUND)),
            (_message(kit, "r", Kind.RECV, 1, 0, 2),),
        ),
        "circle": ((_message(kit, "r", Kind.RECV, 0, 1, 2),), ()),
    }
    with pytest.raises(Unsupported, match=reason):
        simulate_events(compile_plan(kit.plan(*steps[ranks]), kit.cluster()))
