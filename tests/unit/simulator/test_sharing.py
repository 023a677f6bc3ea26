"""Flows of one hub end when the fluid of `links` says they do."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench_simulator.links import Fluid
from gnnbench_simulator.sharing import Sharing

CAPACITY = {0: 1.0, 1: 1.0, 2: 2.0, 3: 0.5}
Begun = tuple[float, tuple[int, ...], float, float]


def ends(flows: list[Begun]) -> list[float]:
    """When flows end that are given as (start, path, work, cap)."""
    heap: list[tuple[float, int, Callable[[float], None]]] = []
    found = [0.0] * len(flows)
    numbers = iter(range(10**6))

    def at(time_s: float, action: Callable[[float], None]) -> None:
        heapq.heappush(heap, (time_s, next(numbers), action))

    sharing = Sharing(
        lambda time_s, who, version: at(time_s, lambda now: sharing.wake(now, who, version))
    )
    for i, (start, path, work, cap) in enumerate(flows):
        pipes = tuple(sharing.pipe(("link", r), lambda name: CAPACITY[name[1]]) for r in path)

        def begin(now: float, i=i, pipes=pipes, work=work, cap=cap) -> None:  # type: ignore[no-untyped-def]
            sharing.start(now, pipes, work, cap, lambda end: found.__setitem__(i, end))

        at(start, begin)
    while heap:
        now, _, action = heapq.heappop(heap)
        action(now)
        if sharing.unsettled and not (heap and heap[0][0] <= now):
            sharing.settle(now)
    return found


def ends_by_fluid(flows: list[Begun]) -> list[float]:
    env, found = simpy.Environment(), [0.0] * len(flows)
    fluid = Fluid(env, lambda name: CAPACITY[name])  # type: ignore[index]

    def watch(i: int):  # type: ignore[no-untyped-def]
        start, path, work, cap = flows[i]
        yield env.timeout(start)
        yield fluid.start(path, work, cap=cap)
        found[i] = env.now

    for i in range(len(flows)):
        env.process(watch(i))
    env.run()
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6).map(float),
            st.sets(st.integers(0, 3), min_size=1, max_size=2).map(lambda s: tuple(sorted(s))),
            st.integers(0, 5).map(float),
            st.sampled_from((0.5, 1.0)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_flows_end_as_in_the_fluid(flows: list[Begun]) -> None:
    assert ends(flows) == pytest.approx(ends_by_fluid(flows), rel=1e-9, abs=1e-9)


def test_flows_of_one_hub_end_by_their_size() -> None:
    """Three on one link of 1 unit/s: 1 s of a third each, then halves, then all."""
    assert ends([(0.0, (0,), work, 9.0) for work in (1.0, 2.0, 3.0)]) == [3.0, 5.0, 6.0]


def test_a_flow_alone_on_its_path_makes_way_where_others_join_it() -> None:
    """On links 0 and 1 alone, then at link 0 with a second flow, whose other link is 3's half."""
    flows = [(0.0, (0, 1), 3.0, 9.0), (1.0, (0,), 1.0, 9.0)]
    assert ends(flows) == pytest.approx([4.0, 3.0])
    assert ends([*flows[:1], (1.0, (0, 3), 1.0, 9.0)]) == pytest.approx([4.0, 3.0])
