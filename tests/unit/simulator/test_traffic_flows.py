"""Transfers over links: ends are those of setting all rates anew at every start and end."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import inf

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench_simulator import traffic_flows
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.traffic_flows import TrafficFlows
from gnnbench_simulator.water_filling import fair_rates

FIXED = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Asked:
    """A transfer: when it starts, its usage by link, weight, work and cap."""

    at_s: float
    usage: dict[int, float]
    weight: float
    work: float
    cap: float

    @property
    def demand(self) -> Demand:
        links = np.fromiter(self.usage, np.int64, len(self.usage))
        usage = np.fromiter(self.usage.values(), np.float64, len(self.usage))
        return Demand(links, usage, self.weight)


def ends(asked: list[Asked], capacity: list[float]) -> list[float]:
    """When each transfer ends, with a clock as small as can be."""
    heap: list[tuple[float, int, int, int]] = []
    found = [inf] * len(asked)
    flows = TrafficFlows(capacity, lambda at, version: heapq.heappush(heap, (at, 1, version, 0)))
    for number, one in enumerate(asked):
        heapq.heappush(heap, (one.at_s, 0, number, 0))
    while heap:
        now, what, number, _ = heapq.heappop(heap)
        if what:
            flows.wake(now, number)
        else:
            one = asked[number]

            def done(end: float, number: int = number) -> None:
                found[number] = end

            flows.start(now, one.demand, one.work, one.cap, done)
        if flows.unsettled and not (heap and heap[0][0] <= now):
            flows.settle(now)
    return found


def ends_by_all(asked: list[Asked], capacity: list[float]) -> list[float]:
    """The same by filling all links with all flows whenever one starts or ends."""
    left = [one.work for one in asked]
    found = [one.at_s if one.work <= 0 else inf for one in asked]
    starts = sorted({one.at_s for one in asked})
    now = starts[0]
    while inf in found:
        on = [i for i, one in enumerate(asked) if one.at_s <= now and found[i] == inf]
        usages = [asked[i].usage for i in on]
        rates = fair_rates(
            np.cumsum([0, *(len(usage) for usage in usages)]),
            np.array([link for usage in usages for link in usage], np.int64),
            np.array([value for usage in usages for value in usage.values()]),
            np.array([asked[i].weight for i in on]),
            np.array([asked[i].cap for i in on]),
            np.array(capacity),
        )
        over = {i: now + left[i] / rate for i, rate in zip(on, rates.tolist(), strict=True)}
        later = min([at for at in starts if at > now], default=inf)
        then = min(later, *over.values()) if over else later
        for i, rate in zip(on, rates.tolist(), strict=True):
            left[i] -= rate * (then - now)
            if over[i] <= then * (1 + 1e-12):
                found[i] = then
        now = then
    return found


_usage = st.dictionaries(st.integers(0, 5), st.sampled_from((0.5, 1.0, 3.0)), max_size=4)
_asked = st.builds(
    Asked,
    at_s=st.sampled_from((0.0, 0.0, 0.5, 1.0, 2.5, 7.0)),
    usage=_usage,
    weight=st.sampled_from((0.25, 1.0, 2.0)),
    work=st.sampled_from((0.0, 1.0, 2.0, 3.7, 11.0)),
    cap=st.sampled_from((0.5, 2.0, 50.0)),
)


@pytest.mark.parametrize("few", [0, 24], ids=["arrays", "plain"])
@FIXED
@given(
    asked=st.lists(_asked, min_size=1, max_size=14),
    capacity=st.lists(st.sampled_from((0.5, 1.0, 4.0, 9.0)), min_size=6, max_size=6),
)
def test_ends_are_those_of_filling_all_links_anew(
    few: int, asked: list[Asked], capacity: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traffic_flows, "_FEW", few)
        found = ends(asked, capacity)
    assert found == pytest.approx(ends_by_all(asked, capacity), rel=1e-8, abs=1e-8)


def test_links_grow_to_the_whole_component_where_rates_change_everywhere() -> None:
    """A chain of links, each shared by two flows: the end of the first flow moves all others."""
    number = 12
    asked = [Asked(0.0, {0: 1.0}, 1.0, 1.0, 1e6)]
    asked += [Asked(0.0, {i: 1.0, i + 1: 1.0}, 1.0, 100.0 + i, 1e6) for i in range(number)]
    capacity = [4.0 * 1.01**i for i in range(number + 1)]
    assert ends(asked, capacity) == pytest.approx(ends_by_all(asked, capacity), rel=1e-9)


def test_an_end_re_rates_only_where_rates_change() -> None:
    """Pairs of copies under 200 switches, and a collective over all of them at its cap.

    A copy's end concerns its neighbour. Without this, each of the 400 ends would re-rate all flows.
    """
    switches = 200
    spread = Demand(np.arange(switches), np.full(switches, 1.0), 1e-3)
    copies = [Demand(np.array([n // 2]), np.ones(1)) for n in range(2 * switches)]
    heap: list[tuple[float, int]] = []
    flows = TrafficFlows([10.0] * switches, lambda *alarm: heapq.heappush(heap, alarm))
    over: list[float] = []
    flows.start(0.0, spread, 1.0, 1e-3, over.append)
    for number, copy in enumerate(copies):
        flows.start(0.0, copy, 100.0 + number, 8.0, over.append)
    flows.settle(0.0)
    before = flows.rerated
    while len(over) < len(copies):
        now, version = heapq.heappop(heap)
        flows.wake(now, version)
        if flows.unsettled:
            flows.settle(now)
    # The neighbour, and the collective that keeps its rate.
    assert flows.rerated - before <= 2 * len(copies)
