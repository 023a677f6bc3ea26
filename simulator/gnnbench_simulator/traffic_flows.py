"""Transfers under way over the links of a fabric: max-min fair, re-rated by connected component.

A link binds only while the highest rates of its flows together exceed its capacity. Flows that meet
at such links form a component, and only components in which a flow started or ended are re-rated.
All other flows run at their highest rate and cost nothing but their start and end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.water_filling import fair_rates

_FULL = 1.0 + 1e-9
"""Times its capacity from which a link binds: sums of rates are rounded."""
_SAME = 1e-12

Binds = npt.NDArray[np.bool_]


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
        component = self._component(touched)
        self.rerated += len(component)
        rates = self._rates(component)
        for (transfer, binds), rate in zip(component.items(), rates.tolist(), strict=True):
            self._rate(transfer, rate if binds.any() else transfer.cap, now)

    def _rate(self, transfer: Transfer, rate: float, now: float) -> None:
        if abs(rate - transfer.rate) <= _SAME * rate:
            return  # its alarm is right as it is
        transfer.left -= transfer.rate * (now - transfer.since_s)
        transfer.since_s, transfer.rate = now, rate
        transfer.version += 1
        self._alarm(now + max(transfer.left, 0.0) / rate, transfer, transfer.version)

    def _rates(self, component: dict[Transfer, Binds]) -> Floats:
        """Fair rates of some flows on the links that bind."""
        flows, binds = list(component), list(component.values())
        empty = np.zeros(0, np.int64)
        links = np.concatenate(
            [empty, *(t.demand.links[own] for t, own in zip(flows, binds, strict=True))]
        )
        known, numbers = np.unique(links, return_inverse=True)
        return fair_rates(
            np.cumsum([0, *(int(own.sum()) for own in binds)]),
            numbers.astype(np.int64),
            np.concatenate(
                [np.zeros(0), *(t.demand.usage[own] for t, own in zip(flows, binds, strict=True))]
            ),
            np.array([t.demand.weight for t in flows]),
            np.array([t.cap for t in flows]),
            self._limit[known] / _FULL,
        )

    def _component(self, touched: dict[int, None]) -> dict[Transfer, Binds]:
        """Flows on these links, and those that share a binding link with one of them.

        With each flow: which of its links bind, in its order.
        """
        found: dict[Transfer, Binds] = {}
        frontier, seen = list(touched), dict(touched)
        while frontier:
            for transfer in self._users[frontier.pop()]:
                if transfer in found:
                    continue
                links = transfer.demand.links
                binds = found[transfer] = self._asked[links] > self._limit[links]
                for link in links[binds].tolist():
                    if link not in seen:
                        seen[link] = None
                        frontier.append(link)
        return found

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
