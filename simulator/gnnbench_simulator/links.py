"""Shared links and cores as fluids: max-min fair rates, re-rated when a flow starts or ends.

Only flows connected by shared resources are re-rated. A flow may have a cap of its own (a rank's
threads on a host's cores, one TCP stream on a NIC).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from math import inf

import simpy

from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.fairness import max_min_rates
from gnnbench_simulator.traffic_flows import TrafficFlows

Resource = Hashable


@dataclass(slots=True, eq=False)
class Flow:
    """Work under way: `left` units to go at `rate` units per second since `since_s`."""

    path: tuple[Resource, ...]
    left: float
    cap: float
    done: simpy.Event
    rate: float = 0.0
    since_s: float = 0.0
    version: int = field(default=0)


class Fluid:
    """Resources whose capacity flows share while they last."""

    def __init__(self, env: simpy.Environment, capacity: Callable[[Resource], float]) -> None:
        """Make resources on demand; `capacity` gives units per second of each."""
        self.env = env
        self._capacity_of = capacity
        self._capacity: dict[Resource, float] = {}
        self._users: dict[Resource, dict[Flow, None]] = {}
        self._touched: set[Resource] = set()

    def start(self, path: Iterable[Resource], work: float, *, cap: float = inf) -> simpy.Event:
        """Begin a flow; the event comes when its work is done."""
        flow = Flow(tuple(path), work, cap, self.env.event(), since_s=self.env.now)
        if work <= 0 or not flow.path:
            flow.done.succeed()
            return flow.done
        for resource in flow.path:
            if resource not in self._capacity:
                self._capacity[resource] = self._capacity_of(resource)
                self._users[resource] = {}
            self._users[resource][flow] = None
        self._touch(flow.path)
        return flow.done

    def _touch(self, path: Iterable[Resource]) -> None:
        """Re-rate once for all that starts or ends at this moment."""
        if not self._touched:
            self.env.timeout(0.0).callbacks.append(self._rerate)
        self._touched.update(path)

    def _rerate(self, _: simpy.Event) -> None:
        flows = self._component()
        self._touched.clear()
        now = self.env.now
        rates = max_min_rates([(f.path, f.cap) for f in flows], self._capacity)
        for flow, rate in zip(flows, rates, strict=True):
            flow.left -= flow.rate * (now - flow.since_s)
            flow.since_s, flow.rate = now, rate
            flow.version += 1
            self._watch(flow)

    def _component(self) -> list[Flow]:
        """Flows that share a resource, directly or through others, with one that was touched."""
        found: dict[Flow, None] = {}
        frontier, seen = list(self._touched), set(self._touched)
        while frontier:
            for flow in self._users[frontier.pop()]:
                if flow in found:
                    continue
                found[flow] = None
                for resource in flow.path:
                    if resource not in seen:
                        seen.add(resource)
                        frontier.append(resource)
        return list(found)

    def _watch(self, flow: Flow) -> None:
        version = flow.version

        def ended(_: simpy.Event) -> None:
            # A flow that was re-rated meanwhile has a later watcher.
            if flow.version == version and not flow.done.triggered:
                for resource in flow.path:
                    del self._users[resource][flow]
                flow.done.succeed()
                self._touch(flow.path)

        wait = self.env.timeout(max(flow.left, 0.0) / flow.rate)
        wait.callbacks.append(ended)


class FluidTraffic:
    """Transfers over the links of a fabric as events of SimPy, see `traffic_flows`."""

    def __init__(self, env: simpy.Environment, capacities: list[float]) -> None:
        self.env = env
        self._flows = TrafficFlows(capacities, self._wake_later)
        self._settling = False

    def start(self, demand: Demand, work: float, cap: float) -> simpy.Event:
        """Begin a transfer; the event comes when its work is done."""
        over = self.env.event()

        def done(_: float) -> None:
            over.succeed()

        self._flows.start(self.env.now, demand, work, cap, done)
        self._settle_soon()
        return over

    def _wake_later(self, time_s: float, version: int) -> None:
        def woken(_: simpy.Event) -> None:
            self._flows.wake(self.env.now, version)
            self._settle_soon()

        self.env.timeout(max(time_s - self.env.now, 0.0)).callbacks.append(woken)

    def _settle_soon(self) -> None:
        """Re-rate once for all that starts or ends at this moment."""
        if self._flows.unsettled and not self._settling:
            self._settling = True
            self.env.timeout(0.0).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        self._settling = False
        self._flows.settle(self.env.now)
