"""Transfers under way over the links of a fabric: max-min fair, re-rated by connected component.

A link binds only while the highest rates of its flows together exceed its capacity. Flows that meet
at such links form a component, and only components in which a flow started or ended are re-rated.
All other flows run at their highest rate and cost nothing but their start and end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.water_filling import fair_rates

_FULL = 1.0 + 1e-9
"""Times its capacity from which a link binds: sums of rates are rounded."""
_SAME = 1e-12


@dataclass(slots=True, eq=False)
class Transfer:
    """A flow under way: `left` units of work to go at `rate` units per second since `since_s`."""

    demand: Demand
    left: float
    cap: float
    done: Callable[[float], None]
    rate: float = 0.0
    since_s: float = 0.0
    version: int = 0


Alarm = Callable[[float, Transfer, int], None]


class TrafficFlows:
    """Transfers in progress. The caller keeps the clock, as for `sharing.Sharing`.

    `alarm(time_s, who, version)` asks for `wake(time_s, who, version)` at that time. After all
    events of one moment, `settle(time_s)` sets the new rates. `capacities` may grow.
    """

    def __init__(self, capacities: list[float], alarm: Alarm) -> None:
        self._capacities, self._alarm = capacities, alarm
        self._limit: Floats = np.zeros(0)
        self._asked: Floats = np.zeros(0)
        self._users: list[dict[Transfer, None]] = []
        self._touched: dict[int, None] = {}
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
        transfer = Transfer(demand, work, cap, done, since_s=now)
        links = demand.links
        self._asked[links] += cap * demand.usage
        for link in links.tolist():
            self._users[link][transfer] = None
        full = self._full(demand)
        if full:
            self._touched |= dict.fromkeys(full)
        else:
            self._rate(transfer, cap, now)

    def wake(self, now: float, who: Transfer, version: int) -> None:
        """End a flow whose alarm is up to date."""
        if who.version != version:
            return
        who.version += 1
        self._touched |= dict.fromkeys(self._full(who.demand))
        self._asked[who.demand.links] -= who.cap * who.demand.usage
        for link in who.demand.links.tolist():
            users = self._users[link]
            del users[who]
            if not users:
                self._asked[link] = 0.0  # free of rounding
        who.done(now)

    def settle(self, now: float) -> None:
        """Set the rates of every component that was touched."""
        touched, self._touched = self._touched, {}
        found = self._component(touched)
        self.rerated += len(found)
        bound = [self._full(transfer.demand) for transfer in found]
        rates = self._rates(found, bound)
        for transfer, links, rate in zip(found, bound, rates.tolist(), strict=True):
            self._rate(transfer, rate if links else transfer.cap, now)

    def _rate(self, transfer: Transfer, rate: float, now: float) -> None:
        if abs(rate - transfer.rate) <= _SAME * rate:
            return  # its alarm is right as it is
        transfer.left -= transfer.rate * (now - transfer.since_s)
        transfer.since_s, transfer.rate = now, rate
        transfer.version += 1
        self._alarm(now + max(transfer.left, 0.0) / rate, transfer, transfer.version)

    def _rates(self, found: list[Transfer], bound: list[list[int]]) -> Floats:
        """Fair rates of some flows on the links that bind."""
        numbers: dict[int, int] = {}
        for links in bound:
            for link in links:
                numbers.setdefault(link, len(numbers))
        usage = [
            t.demand.usage[np.isin(t.demand.links, links)]
            for t, links in zip(found, bound, strict=True)
        ]
        return fair_rates(
            np.cumsum([0, *map(len, bound)]),
            np.array([numbers[link] for links in bound for link in links], np.int64),
            np.concatenate([np.zeros(0), *usage]),
            np.array([t.demand.weight for t in found]),
            np.array([t.cap for t in found]),
            self._limit[list(numbers)] / _FULL,
        )

    def _component(self, touched: dict[int, None]) -> list[Transfer]:
        """Flows on these links, and those that share a binding link with one of them."""
        found: dict[Transfer, None] = {}
        frontier, seen = list(touched), dict(touched)
        while frontier:
            for transfer in self._users[frontier.pop()]:
                if transfer in found:
                    continue
                found[transfer] = None
                for link in self._full(transfer.demand):
                    if link not in seen:
                        seen[link] = None
                        frontier.append(link)
        return list(found)

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
            self._users += [{} for _ in range(more)]
