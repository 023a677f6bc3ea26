"""Transfers under way over the links of a fabric: max-min fair, re-rated only where rates change.

A link binds only while the highest rates of its flows together exceed its capacity. Rates are
max-min fair if each flow runs at its cap, or is among the fastest (in rate / weight) on a link that
is full. That is a condition on single flows and links, so a start or an end is settled from the
links that it touched: flows that another link limits keep their rate as a cap, and a link is added
only if its flows would exceed it, or if one of them falls and others there could rise. No such
link is left when rates are set, so they are those of filling all links together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.water_filling import AT_CAP, Ints, filled

_FULL = 1.0 + 1e-9
"""Times its capacity from which a link binds: sums of rates are rounded."""
_SAME = 1e-12
_FEW = 24
"""Flows on all touched links up to which plain Python is faster than arrays."""
_GROWN = 5
"""How often links are added before the whole component is taken."""

Path = list[tuple[int, float]]


@dataclass(slots=True)
class _Fair:
    """Rates of the flows on some links, and of each flow the link that limits it, or AT_CAP.

    `loads` are those of all binding links on which a rate changed; `more` those that must be added.
    """

    flows: Ints
    rates: Floats
    limits: Ints
    loads: dict[int, float]
    more: list[int]


Alarm = Callable[[float, int], None]


class TrafficFlows:
    """Transfers in progress. The caller keeps the clock, as for `sharing.Sharing`.

    `alarm(time_s, version)` asks for `wake(time_s, version)` at that time. After all events of one
    moment, `settle(time_s)` sets the new rates. `capacities` may grow.
    """

    def __init__(self, capacities: list[float], alarm: Alarm) -> None:
        self._capacities, self._alarm = capacities, alarm
        # Of each link: its capacity with room for rounding, the rates of its flows at their caps,
        # their rates now (where it binds), and how many flows it limits.
        self._limit: Floats = np.zeros(0)
        self._asked: Floats = np.zeros(0)
        self._load: Floats = np.zeros(0)
        self._limits: Ints = np.zeros(0, np.int64)
        self._users: list[dict[int, float]] = []  # its flows, with their usage
        # Of each flow, by a number that is used again: `left` is its work at `since`.
        self._cap, self._weight, self._rate = np.zeros(0), np.zeros(0), np.zeros(0)
        self._left, self._since, self._end = np.zeros(0), np.zeros(0), np.zeros(0)
        self._by: Ints = np.zeros(0, np.int64)  # the link that limits it, or AT_CAP
        self._demand: list[Demand] = []
        self._done: list[Callable[[float], None]] = []
        self._free: list[int] = []
        self._touched: dict[int, None] = {}
        self._next, self._version = inf, 0
        self.rerated = 0

    @property
    def unsettled(self) -> bool:
        return bool(self._touched)

    def start(
        self, now: float, demand: Demand, work: float, cap: float, done: Callable[[float], None]
    ) -> None:
        """Begin a flow of some work at no more than `cap` units per second, above 0."""
        if work <= 0:
            done(now)
            return
        self._grow()
        flow = self._number(demand, done)
        self._cap[flow], self._weight[flow], self._rate[flow] = cap, demand.weight, 0.0
        self._left[flow], self._since[flow], self._end[flow] = work, now, inf
        self._by[flow] = AT_CAP
        links = demand.links
        self._asked[links] += cap * demand.usage
        for link, usage in zip(links.tolist(), demand.usage.tolist(), strict=True):
            self._users[link][flow] = usage
        full = self._full(demand)
        if full:
            self._touched |= dict.fromkeys(full)
            return
        self._rate[flow] = cap
        end = self._end[flow] = now + work / cap
        if end < self._next:
            self._ask(end)

    def wake(self, now: float, version: int) -> None:
        """End the flows for whose end an alarm was asked, if it is up to date."""
        if version != self._version:
            return
        ended = np.flatnonzero(self._end <= self._next).tolist()
        self._next = inf
        # All are gone before the first callback, which may start others in their place.
        over = [self._done[flow] for flow in ended]
        for flow in ended:
            self._remove(flow)
        for done in over:
            done(now)
        if not self._touched:
            self._ask_for_next()

    def settle(self, now: float) -> None:
        """Set the rates of all flows that starts and ends since the last time affect."""
        touched, self._touched = self._touched, {}
        region = dict(touched)
        for _ in range(_GROWN):
            found = self._fair(region)
            if not found.more:
                break
            region |= dict.fromkeys(found.more)
        else:
            found = self._fair(self._component(touched))
        self.rerated += len(found.flows)
        for link, load in found.loads.items():
            self._load[link] = load
        self._set(found, now)
        self._ask_for_next()

    # -- flows and links -------------------------------------------------------------------------

    def _number(self, demand: Demand, done: Callable[[float], None]) -> int:
        if not self._free:
            old = len(self._done)
            more = max(64, old)
            for name in ("_cap", "_weight", "_rate", "_left", "_since"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more)]))
            self._end = np.concatenate([self._end, np.full(more, inf)])
            self._by = np.concatenate([self._by, np.full(more, AT_CAP)])
            self._demand += [demand] * more
            self._done += [done] * more
            self._free = list(range(old + more - 1, old - 1, -1))
        flow = self._free.pop()
        self._demand[flow], self._done[flow] = demand, done
        return flow

    def _remove(self, flow: int) -> None:
        demand = self._demand[flow]
        self._touched |= dict.fromkeys(self._full(demand))
        links = demand.links
        self._asked[links] -= self._cap[flow] * demand.usage
        self._load[links] -= self._rate[flow] * demand.usage
        if self._by[flow] != AT_CAP:
            self._limits[self._by[flow]] -= 1
        for link in links.tolist():
            users = self._users[link]
            del users[flow]
            if not users:
                self._asked[link] = self._load[link] = 0.0  # free of rounding
        self._end[flow] = inf
        self._free.append(flow)

    def _full(self, demand: Demand) -> list[int]:
        """The links of a flow that bind now, in its order."""
        links = demand.links
        return list(links[self._asked[links] > self._limit[links]].tolist())

    def _grow(self) -> None:
        more = len(self._capacities) - len(self._limit)
        if more > 0:
            fresh = np.array(self._capacities[-more:])
            self._limit = np.concatenate([self._limit, fresh * _FULL])
            self._asked = np.concatenate([self._asked, np.zeros(more)])
            self._load = np.concatenate([self._load, np.zeros(more)])
            self._limits = np.concatenate([self._limits, np.zeros(more, np.int64)])
            self._users += [{} for _ in range(more)]

    # -- alarms ----------------------------------------------------------------------------------

    def _ask(self, time_s: float) -> None:
        self._next = time_s
        self._version += 1
        self._alarm(time_s, self._version)

    def _ask_for_next(self) -> None:
        if not len(self._end):
            return
        end = float(self._end.min())
        if end != self._next:
            self._ask(end) if end < inf else None

    # -- rates -----------------------------------------------------------------------------------

    def _fair(self, region: dict[int, None]) -> _Fair:
        """Rates of the flows on these links while all other flows keep theirs."""
        number = sum(len(self._users[link]) for link in region)
        return self._fair_few(region) if number <= _FEW else self._fair_many(region)

    def _fair_few(self, region: dict[int, None]) -> _Fair:
        paths: dict[int, Path] = {}
        left: dict[int, float] = {}
        for link in region:
            binds = self._asked[link] > self._limit[link]
            if binds:
                left[link] = float(self._limit[link]) / _FULL
            for flow, usage in self._users[link].items():
                path = paths.setdefault(flow, [])
                if binds:
                    path.append((link, usage))
        caps: dict[int, float] = {}
        for flow in paths:
            # A flow that a link elsewhere limits cannot rise here.
            held = self._by[flow] != AT_CAP and self._by[flow] not in region
            caps[flow] = float(self._rate[flow] if held else self._cap[flow])
        weights = {flow: float(self._weight[flow]) for flow in paths}
        rates, limits = _fill_few(paths, weights, caps, left)
        loads = dict.fromkeys(left, 0.0)
        more: dict[int, None] = {}
        for flow, path in paths.items():
            rate, was = rates[flow], float(self._rate[flow])
            for link, usage in path:
                loads[link] += usage * rate
            if limits[flow] == AT_CAP and self._by[flow] not in region:
                limits[flow] = int(self._by[flow])
            if abs(rate - was) <= _SAME * rate:
                continue
            demand = self._demand[flow]
            if len(demand.links) == len(path):
                continue
            for link in self._full(demand):
                if link in region:
                    continue
                if rate < was and self._limits[link]:
                    more[link] = None
                usage = self._users[link][flow]
                loads[link] = loads.get(link, float(self._load[link])) + usage * (rate - was)
        more |= {k: None for k, v in loads.items() if k not in region and v > self._limit[k]}
        flows = np.fromiter(paths, np.int64, len(paths))
        return _Fair(
            flows,
            np.array([rates[flow] for flow in paths]),
            np.array([limits[flow] for flow in paths], np.int64),
            loads,
            list(more),
        )

    def _fair_many(self, region: dict[int, None]) -> _Fair:
        links = np.fromiter(region, np.int64, len(region))
        users = [self._users[link] for link in region]
        flow_of = np.array([flow for own in users for flow in own], np.int64)
        usage = np.array([value for own in users for value in own.values()])
        link_of = np.repeat(np.arange(len(links)), [len(own) for own in users])
        flows, place = np.unique(flow_of, return_inverse=True)
        binds = (self._asked[links] > self._limit[links])[link_of]
        order = np.argsort(place[binds], kind="stable")
        place, link_of, usage = place[binds][order], link_of[binds][order], usage[binds][order]
        inside = np.zeros(len(self._limit) + 1, np.bool_)
        inside[links] = True
        inside[AT_CAP] = True  # the last: a cap is no link elsewhere
        was = self._rate[flows]
        held = ~inside[self._by[flows]]
        starts = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(flows)))])
        rates, limits = filled(
            starts,
            link_of,
            usage,
            self._weight[flows],
            np.where(held, was, self._cap[flows]),
            self._limit[links] / _FULL,
        )
        limits = np.where(limits == AT_CAP, np.where(held, self._by[flows], AT_CAP), links[limits])
        sums = np.bincount(link_of, usage * rates[place], len(links))
        loads = dict(zip(links.tolist(), sums.tolist(), strict=True))
        changed = np.flatnonzero(np.abs(rates - was) > _SAME * rates)
        more = self._outside(flows[changed], rates[changed] - was[changed], inside, loads)
        return _Fair(flows, rates, limits, loads, more)

    def _outside(
        self, flows: Ints, change: Floats, inside: npt.NDArray[np.bool_], loads: dict[int, float]
    ) -> list[int]:
        """Binding links outside a region that changes of rates affect; adds to the loads."""
        demands = [self._demand[flow] for flow in flows.tolist()]
        if not demands:
            return []
        links = np.concatenate([demand.links for demand in demands])
        counts = [len(demand.links) for demand in demands]
        picked = ~inside[links] & (self._asked[links] > self._limit[links])
        if not picked.any():
            return []
        links, by = links[picked], np.repeat(change, counts)[picked]
        usage = np.concatenate([demand.usage for demand in demands])[picked]
        known, number = np.unique(links, return_inverse=True)
        sums = self._load[known] + np.bincount(number, usage * by, len(known))
        loads |= dict(zip(known.tolist(), sums.tolist(), strict=True))
        risen = sums > self._limit[known]
        fallen = np.bincount(number, by < 0, len(known)) > 0
        more: list[int] = known[risen | (fallen & (self._limits[known] > 0))].tolist()
        return more

    def _component(self, touched: Iterable[int]) -> dict[int, None]:
        """These links, and all binding links connected with them by flows."""
        region = dict.fromkeys(touched)
        frontier, seen = list(region), set[int]()
        while frontier:
            for flow in self._users[frontier.pop()]:
                if flow in seen:
                    continue
                seen.add(flow)
                for link in self._full(self._demand[flow]):
                    if link not in region:
                        region[link] = None
                        frontier.append(link)
        return region

    def _set(self, found: _Fair, now: float) -> None:
        """Set rates, and the ends of flows whose rates changed."""
        flows, rates = found.flows, found.rates
        by = self._by[flows]
        moved = np.flatnonzero(by != found.limits)
        if len(moved):
            for sign, limits in ((-1, by[moved]), (1, found.limits[moved])):
                np.add.at(self._limits, limits[limits != AT_CAP], sign)
            self._by[flows[moved]] = found.limits[moved]
        changed = np.abs(rates - self._rate[flows]) > _SAME * rates
        if not changed.all():
            flows, rates = flows[changed], rates[changed]
        left = self._left[flows] - self._rate[flows] * (now - self._since[flows])
        self._left[flows], self._since[flows], self._rate[flows] = left, now, rates
        self._end[flows] = now + np.maximum(left, 0.0) / rates


def _fill_few(
    paths: dict[int, Path],
    weights: dict[int, float],
    caps: dict[int, float],
    left: dict[int, float],
) -> tuple[dict[int, float], dict[int, int]]:
    """Progressive filling as in `filled`; `left` are capacities, which are used up."""
    rates, limits = dict(caps), dict.fromkeys(paths, AT_CAP)
    asked = dict.fromkeys(left, 0.0)
    users: dict[int, list[int]] = {link: [] for link in left}
    for flow, path in paths.items():
        for link, usage in path:
            asked[link] += usage * weights[flow]
            users[link].append(flow)
    rising = {flow for flow, path in paths.items() if path}
    live = dict.fromkeys(left)
    while rising:
        live = {link: None for link in live if any(flow in rising for flow in users[link])}
        level, at = min((max(left[link], 0.0) / asked[link], link) for link in live)
        frozen = [flow for flow in rising if caps[flow] <= level * weights[flow]]
        if not frozen:
            frozen = [flow for flow in users[at] if flow in rising]
            for flow in frozen:
                rates[flow], limits[flow] = level * weights[flow], at
        for flow in frozen:
            rising.discard(flow)
            for link, usage in paths[flow]:
                left[link] -= usage * rates[flow]
                asked[link] -= usage * weights[flow]
    return rates, limits
