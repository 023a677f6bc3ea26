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


class _Column:
    """Numbers of all flows, or of all links: `all` for arrays of them, `one` for single ones.

    A memoryview reads and writes one number in a fraction of the time of an array.
    """

    __slots__ = ("all", "one")

    def __init__(self) -> None:
        self.all: Floats = np.zeros(0)
        self.one: memoryview[float] = memoryview(self.all)  # type: ignore[arg-type]

    def grow(self, more: Floats) -> None:
        self.all = np.concatenate([self.all, more])
        self.one = memoryview(self.all)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Fair:
    """Rates of the flows on some links, and of each flow the link that limits it, or AT_CAP.

    `loads` are those of all binding links on which a rate changed; `more` those that must be added.
    """

    flows: list[int]
    rates: Floats | list[float]
    limits: Ints | list[int]
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
        self._limit, self._asked, self._load = _Column(), _Column(), _Column()
        self._limits: list[int] = []
        self._users: list[dict[int, float]] = []  # its flows, with their usage
        # Of each flow, by a number that is used again: `left` is its work at `since`.
        self._cap, self._weight, self._rate = _Column(), _Column(), _Column()
        self._left, self._since, self._end = _Column(), _Column(), _Column()
        self._by: list[int] = []  # the link that limits it, or AT_CAP
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
        self._cap.one[flow], self._weight.one[flow] = cap, demand.weight
        self._rate.one[flow], self._by[flow] = 0.0, AT_CAP
        self._left.one[flow], self._since.one[flow], self._end.one[flow] = work, now, inf
        asked, users = self._asked.one, self._users
        for link, usage in zip(demand.links.tolist(), demand.usage.tolist(), strict=True):
            asked[link] += cap * usage
            users[link][flow] = usage
        full = self._full(demand)
        if full:
            self._touched |= dict.fromkeys(full)
            return
        self._rate.one[flow] = cap
        end = self._end.one[flow] = now + work / cap
        if end < self._next:
            self._ask(end)

    def wake(self, now: float, version: int) -> None:
        """End the flows for whose end an alarm was asked, if it is up to date."""
        if version != self._version:
            return
        ended = np.flatnonzero(self._end.all <= self._next).tolist()
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
            self._load.one[link] = load
        self._set(found, now)
        self._ask_for_next()

    # -- flows and links -------------------------------------------------------------------------

    def _number(self, demand: Demand, done: Callable[[float], None]) -> int:
        if not self._free:
            old = len(self._done)
            more = max(64, old)
            for column in (self._cap, self._weight, self._rate, self._left, self._since):
                column.grow(np.zeros(more))
            self._end.grow(np.full(more, inf))
            self._by += [AT_CAP] * more
            self._demand += [demand] * more
            self._done += [done] * more
            self._free = list(range(old + more - 1, old - 1, -1))
        flow = self._free.pop()
        self._demand[flow], self._done[flow] = demand, done
        return flow

    def _remove(self, flow: int) -> None:
        demand = self._demand[flow]
        self._touched |= dict.fromkeys(self._full(demand))
        cap, rate, by = self._cap.one[flow], self._rate.one[flow], self._by[flow]
        if by != AT_CAP:
            self._limits[by] -= 1
        asked, load = self._asked.one, self._load.one
        for link in demand.links.tolist():
            users = self._users[link]
            usage = users.pop(flow)
            # Of a link that nobody uses, what rounding left is forgotten.
            asked[link] = asked[link] - cap * usage if users else 0.0
            load[link] = load[link] - rate * usage if users else 0.0
        self._end.one[flow] = inf
        self._free.append(flow)

    def _full(self, demand: Demand) -> list[int]:
        """The links of a flow that bind now, in its order."""
        links = demand.links
        if len(links) <= _FEW:
            asked, limit = self._asked.one, self._limit.one
            return [link for link in links.tolist() if asked[link] > limit[link]]
        return list(links[self._asked.all[links] > self._limit.all[links]].tolist())

    def _grow(self) -> None:
        more = len(self._capacities) - len(self._limits)
        if more > 0:
            self._limit.grow(np.array(self._capacities[-more:]) * _FULL)
            self._asked.grow(np.zeros(more))
            self._load.grow(np.zeros(more))
            self._limits += [0] * more
            self._users += [{} for _ in range(more)]

    # -- alarms ----------------------------------------------------------------------------------

    def _ask(self, time_s: float) -> None:
        self._next = time_s
        self._version += 1
        self._alarm(time_s, self._version)

    def _ask_for_next(self) -> None:
        end = float(self._end.all.min(initial=inf))
        if end != self._next and end < inf:
            self._ask(end)

    # -- rates -----------------------------------------------------------------------------------

    def _fair(self, region: dict[int, None]) -> _Fair:
        """Rates of the flows on these links while all other flows keep theirs."""
        number = sum(len(self._users[link]) for link in region)
        return self._fair_few(region) if number <= _FEW else self._fair_many(region)

    def _fair_few(self, region: dict[int, None]) -> _Fair:
        asked, limit, now = self._asked.one, self._limit.one, self._rate.one
        paths: dict[int, Path] = {}
        left: dict[int, float] = {}
        for link in region:
            binds = asked[link] > limit[link]
            if binds:
                left[link] = limit[link] / _FULL
            for flow, usage in self._users[link].items():
                path = paths.setdefault(flow, [])
                if binds:
                    path.append((link, usage))
        loads = dict.fromkeys(left, 0.0)
        # A flow that a link elsewhere limits cannot rise here.
        held = {f for f in paths if self._by[f] != AT_CAP and self._by[f] not in region}
        caps = {flow: now[flow] if flow in held else self._cap.one[flow] for flow in paths}
        weights = {flow: self._weight.one[flow] for flow in paths}
        rates, limits = _fill_few(paths, weights, caps, left)
        more: dict[int, None] = {}
        for flow, path in paths.items():
            rate, was = rates[flow], now[flow]
            for link, usage in path:
                loads[link] += usage * rate
            if flow in held and limits[flow] == AT_CAP:
                limits[flow] = self._by[flow]
            demand = self._demand[flow]
            if abs(rate - was) <= _SAME * rate or len(demand.links) == len(path):
                continue
            for link in self._full(demand):
                if link in region:
                    continue
                if rate < was and self._limits[link]:
                    more[link] = None
                usage = self._users[link][flow]
                loads[link] = loads.get(link, self._load.one[link]) + usage * (rate - was)
        for link, load in loads.items():
            if link not in region and load > limit[link]:
                more[link] = None
        return _Fair(list(paths), list(rates.values()), list(limits.values()), loads, list(more))

    def _fair_many(self, region: dict[int, None]) -> _Fair:
        links = np.fromiter(region, np.int64, len(region))
        users = [self._users[link] for link in region]
        flow_of = np.array([flow for own in users for flow in own], np.int64)
        usage = np.array([value for own in users for value in own.values()])
        link_of = np.repeat(np.arange(len(links)), [len(own) for own in users])
        flows, place = np.unique(flow_of, return_inverse=True)
        numbers = flows.tolist()
        binds = (self._asked.all[links] > self._limit.all[links])[link_of]
        order = np.argsort(place[binds], kind="stable")
        place, link_of, usage = place[binds][order], link_of[binds][order], usage[binds][order]
        inside = np.zeros(len(self._limits) + 1, np.bool_)
        inside[links] = True
        inside[AT_CAP] = True  # the last: a cap is no link elsewhere
        was, by = self._rate.all[flows], np.array([self._by[flow] for flow in numbers], np.int64)
        held = ~inside[by]
        starts = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(flows)))])
        rates, limits = filled(
            starts,
            link_of,
            usage,
            self._weight.all[flows],
            np.where(held, was, self._cap.all[flows]),
            self._limit.all[links] / _FULL,
        )
        limits = np.where(limits == AT_CAP, np.where(held, by, AT_CAP), links[limits])
        sums = np.bincount(link_of, usage * rates[place], len(links))
        loads = dict(zip(links.tolist(), sums.tolist(), strict=True))
        changed = np.flatnonzero(np.abs(rates - was) > _SAME * rates)
        more = self._outside(flows[changed], rates[changed] - was[changed], inside, loads)
        return _Fair(numbers, rates, limits, loads, more)

    def _outside(
        self, flows: Ints, change: Floats, inside: npt.NDArray[np.bool_], loads: dict[int, float]
    ) -> list[int]:
        """Binding links outside a region that changes of rates affect; adds to the loads."""
        demands = [self._demand[flow] for flow in flows.tolist()]
        if not demands:
            return []
        links = np.concatenate([demand.links for demand in demands])
        counts = [len(demand.links) for demand in demands]
        limit = self._limit.all
        picked = ~inside[links] & (self._asked.all[links] > limit[links])
        if not picked.any():
            return []
        links, by = links[picked], np.repeat(change, counts)[picked]
        usage = np.concatenate([demand.usage for demand in demands])[picked]
        known, number = np.unique(links, return_inverse=True)
        sums = self._load.all[known] + np.bincount(number, usage * by, len(known))
        loads |= dict(zip(known.tolist(), sums.tolist(), strict=True))
        limits = np.array([self._limits[link] for link in known.tolist()])
        fallen = np.bincount(number, by < 0, len(known)) > 0
        more: list[int] = known[(sums > limit[known]) | (fallen & (limits > 0))].tolist()
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
        limits = found.limits if isinstance(found.limits, list) else found.limits.tolist()
        for flow, limit in zip(found.flows, limits, strict=True):
            by = self._by[flow]
            if by != limit:
                if by != AT_CAP:
                    self._limits[by] -= 1
                if limit != AT_CAP:
                    self._limits[limit] += 1
                self._by[flow] = limit
        if isinstance(found.rates, list):
            rates, lefts, sinces = self._rate.one, self._left.one, self._since.one
            for flow, rate in zip(found.flows, found.rates, strict=True):
                was = rates[flow]
                if abs(rate - was) > _SAME * rate:
                    left = lefts[flow] - was * (now - sinces[flow])
                    lefts[flow], sinces[flow], rates[flow] = left, now, rate
                    self._end.one[flow] = now + max(left, 0.0) / rate
            return
        flows, fresh = np.array(found.flows, np.int64), found.rates
        changed = np.abs(fresh - self._rate.all[flows]) > _SAME * fresh
        flows, fresh = flows[changed], fresh[changed]
        gone = self._rate.all[flows] * (now - self._since.all[flows])
        self._left.all[flows] -= gone
        self._since.all[flows], self._rate.all[flows] = now, fresh
        self._end.all[flows] = now + np.maximum(self._left.all[flows], 0.0) / fresh


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
    rising = dict.fromkeys(flow for flow, path in paths.items() if path)
    while rising:
        level, at = inf, AT_CAP
        for link, total in asked.items():
            if any(flow in rising for flow in users[link]):
                own = max(left[link], 0.0) / total
                if own < level:
                    level, at = own, link
        frozen = [flow for flow in rising if caps[flow] <= level * weights[flow]]
        if not frozen:
            frozen = [flow for flow in users[at] if flow in rising]
            for flow in frozen:
                rates[flow], limits[flow] = level * weights[flow], at
        for flow in frozen:
            del rising[flow]
            for link, usage in paths[flow]:
                left[link] -= usage * rates[flow]
                asked[link] -= usage * weights[flow]
    return rates, limits
