"""Repeats of an iteration are not replayed one by one once they are steady; times stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.steps import LATEST, After, Kind, Lane
from gnnbench_simulator import replay as module
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

LANES = (Lane.COMPUTE, Lane.HOST, Lane.COMM)


def plan_of(
    iterations: Sequence[Any], schedule: tuple[int, ...], periods: int = 2, **facts: Any
) -> Plan:
    """A plan whose periods all run the same schedule; an iteration is the steps of each rank."""
    made = [Iteration.of_ranks(ranks) for ranks in iterations]
    plan = Plan(
        approach="test",
        world_size=len(iterations[0]),
        **repeated(made, periods, schedule),
        **facts,
    )
    plan.validate()
    return plan


def same(kit: Any, plan: Plan) -> Any:
    """The replay's result, after asserting that the engine says the same in everything."""
    program, world = compile_plan(plan, kit.cluster()), range(plan.world_size)
    slow, fast = simulate(program, record=world), replay(program, record=world)
    np.testing.assert_allclose(fast.period_s, slow.period_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fast.end_s, slow.end_s, rtol=1e-9, atol=1e-9)
    for lane in slow.busy_s:
        np.testing.assert_allclose(fast.busy_s[lane], slow.busy_s[lane], rtol=1e-9, atol=1e-9)
    for rank in world:
        tables = [
            sorted((r.iteration, r.name, r.start_s, r.duration_s) for r in rows)
            for rows in (ledger(program, fast, rank), ledger(program, slow, rank))
        ]
        assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
        times = [np.array([row[2:] for row in table]) for table in tables]
        np.testing.assert_allclose(times[0], times[1], rtol=1e-9, atol=1e-6)
    return fast


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the iterations that were replayed step by step."""
    numbers: list[int] = []
    real = module._Replay._iterate

    def iterate(self: Any, prepared: Any, number: int) -> None:
        numbers.append(number)
        real(self, prepared, number)

    monkeypatch.setattr(module._Replay, "_iterate", iterate)
    return numbers


def stages(kit: Any, seconds: tuple[int, ...]) -> tuple[Any, ...]:
    """A broadcast that may run one stage ahead of the work it feeds."""
    group = tuple(range(len(seconds)))
    return tuple(
        (
            kit.meet("b", group, 10, kind=Kind.BROADCAST, after=(After("w", 2),)),
            kit.work("w", each, after=(After("b"),)),
        )
        for each in seconds
    )


def test_a_steady_stage_is_taken_many_times_at_once(kit: Any, executed: list[int]) -> None:
    """Stages of 5 s hide broadcasts of 2 s: 2 + 100 * 5 s, then the next epoch's first 2 s too."""
    result = same(kit, plan_of((stages(kit, (5, 3)),), (0,) * 100))
    assert result.period_s.tolist() == pytest.approx([502.0, 500.0])
    assert len(executed) < 30


def test_what_comes_after_the_repeats_starts_when_they_end(kit: Any) -> None:
    first, last = stages(kit, (5, 3)), ((kit.work("w", 1), kit.work("y", 2, lane=Lane.HOST)),) * 2
    same(kit, plan_of((first, last), (1, *(0,) * 40, 1, *(0,) * 9)))


def test_ranks_that_drift_apart_are_never_steady(kit: Any, executed: list[int]) -> None:
    same(kit, plan_of((((kit.work("a", 1),), (kit.work("a", 2),)),), (0,) * 20, periods=1))
    assert len(executed) == 20


def test_releases_of_a_stream_are_no_steady_state(kit: Any) -> None:
    """Increments of 2 s arrive every 1 s; the last of 50 arrives at 500 s."""
    work = (kit.work("a", 1), kit.work("b", 2, lane=Lane.HOST))
    releases = (*map(float, range(49)), 500.0)
    result = same(kit, plan_of(((work,),), (0,) * 50, periods=1, releases=releases))
    assert result.period_s.tolist() == [502.0]


def test_a_later_iteration_of_other_classes_waits_for_ends_that_stay(kit: Any) -> None:
    """All ranks publish "a"; then rank 1 works on, before rank 0 asks when "a" had ended."""
    first = ((kit.work("a", 4), kit.work("h", 1, lane=Lane.HOST, after=(After("a"),))),) * 2
    latest = After("a", LATEST)
    second = (
        (kit.work("q", 3, lane=Lane.HOST, after=(latest,)),),
        (kit.work("p", 9), kit.work("q", 1, lane=Lane.HOST, after=(latest, After("p")))),
    )
    same(kit, plan_of((first, second), (0, 1, 1, 0)))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_stages_repeat_as_in_the_engine(kit: Any, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, 3))
    iterations = []

    def lags(name: str) -> tuple[int, ...]:
        """Only "start" is in every iteration, and so in the one so many before."""
        return (0, 1, 2, 3, LATEST) if name == "start" else (0, LATEST)

    for tag in "ab":
        ranks: list[list[Any]] = [[kit.work("start", 1)] for _ in range(world)]
        for number in range(data.draw(st.integers(1, 3))):
            lane = data.draw(st.sampled_from(LANES))
            for rank, steps in enumerate(ranks):
                waits = tuple(
                    After(other.name, data.draw(st.sampled_from(lags(other.name))))
                    for other in steps[-2:]
                    if data.draw(st.booleans())
                )
                if lane is Lane.COMM:
                    steps.append(kit.meet(f"{tag}{number}", tuple(range(world)), 5, after=waits))
                elif rank == 0 or data.draw(st.integers(0, 3)):
                    seconds = data.draw(st.integers(0, 6))
                    steps.append(kit.work(f"{tag}{number}", seconds, lane=lane, after=waits))
        iterations.append(tuple(tuple(steps) for steps in ranks))
    runs = data.draw(
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30)), min_size=1, max_size=3)
    )
    schedule = tuple(index for index, times in runs for _ in range(times))
    same(kit, plan_of(tuple(iterations), schedule))
