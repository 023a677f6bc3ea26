"""Thousands of iterations that all differ are made one at a time, and cost little each."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.steps import LATEST, After, Buffer, Kind, Lane, Phase, Space
from gnnbench_simulator import program
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

RANKS = 4


def stream_of(kit: Any, count: int, made: list[int] | None = None) -> Plan:
    """Increments of a stream: no two are alike in their sizes, all in their layout.

    Each is sampled on the host beside the training of the one before, which waits for the sample.
    """
    group = tuple(range(RANKS))

    def increment(k: int) -> Iteration:
        if made is not None:
            made.append(k)
        store = Buffer("store", 10 * k, Space.HOST, exact=True)
        sampled, copied, trained = After("sample"), After("copy"), After("train")
        programs = [
            (
                kit.work("sample", 1 + (7 * k + rank) % 11, lane=Lane.HOST, allocates=(store,)),
                kit.work("copy", 1 + k % 3, kind=Kind.COPY, lane=Lane.COPY, after=(sampled,)),
                kit.work("train", 2 + (k * k + rank) % 5, after=(copied, After("update", LATEST))),
                kit.meet("sum", group, k % 50, after=(trained,)),
                kit.work("update", 1, after=(After("sum"),), phase=Phase.UPDATE),
            )
            for rank in group
        ]
        return Iteration.of_ranks(programs)

    return Plan(
        approach="stream",
        world_size=RANKS,
        iterations=LazyIterations(count, increment),
        schedule=range(count),
        periods=(1,) * count,
        period="increment",
    )


def cost(kit: Any, count: int) -> tuple[int, int, int]:
    """Iterations made, bytes kept and bytes at the peak of compiling and replaying a plan."""
    made: list[int] = []
    plan = stream_of(kit, count, made)
    tracemalloc.start()
    result = replay(compiled := compile_plan(plan, kit.cluster()))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result.period_s) == len(compiled.iterations) == count
    return len(made), kept, peak


def test_an_iteration_more_costs_a_kilobyte_a_rank_at_most(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what is kept and the peak grow by that, beyond what all iterations have in common.

    Each iteration is made twice: to validate the plan and to price its steps.
    """
    monkeypatch.setattr(program, "_PRICED_AT_ONCE", 200)
    cost(kit, 50)  # fills caches
    few, many = cost(kit, 100), cost(kit, 400)
    assert (few[0], many[0]) == (200, 800)
    assert many[1] - few[1] < 300 * RANKS * 1024
    assert many[2] - few[2] < 300 * RANKS * 1024


def test_iterations_that_all_differ_take_the_same_time_in_engine_events_and_replay(
    kit: Any, periods_by_all: Any
) -> None:
    plan = stream_of(kit, 100)
    plan.validate()
    seconds = periods_by_all(plan)
    assert len(set(seconds)) > 5


def test_a_stream_of_differing_increments_is_predicted_whole(kit: Any) -> None:
    """Increments of the plan are the periods of the prediction; the store grows to 10 x 199 B."""
    found = predict_plan(stream_of(kit, 200), kit.cluster())
    assert (found.method, found.period, len(found.periods_s)) == ("replay", "increment", 200)
    assert {entry["workload_bytes"] for entry in found.memory} == {1990}
