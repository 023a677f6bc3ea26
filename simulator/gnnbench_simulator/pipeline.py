"""Two engines that hand chunks to each other: recurrence, closed form, best order, SimPy.

A producer makes chunk k in a[k] seconds, a link carries it in l[k], a consumer takes u[k]. Between
the engines there are `slots` buffers: the producer may begin chunk k once the consumer has finished
chunk k - slots. Source: fullgraph section 10, simulation section 9.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnbench.costs.facts import Floats


@dataclass(frozen=True, slots=True)
class Ends:
    """When each chunk leaves the producer, the link and the consumer, in seconds from the start."""

    producer_s: Floats
    link_s: Floats
    consumer_s: Floats

    @property
    def makespan_s(self) -> float:
        return float(self.consumer_s[-1]) if len(self.consumer_s) else 0.0


def pipeline(a: Floats, link: Floats, u: Floats, slots: int) -> Ends:
    """Run the chunks in the given order.

    A[k] = max(A[k-1], D[k-slots]) + a[k], L[k] = max(L[k-1], A[k]) + l[k],
    D[k] = max(D[k-1], L[k]) + u[k]. With as many slots as chunks each line is a max-plus scan.
    """
    if slots >= len(a):
        first = np.cumsum(a)
        second = _scan(first, link)
        return Ends(first, second, _scan(second, u))
    made: list[float] = []
    carried: list[float] = []
    done: list[float] = []
    last_a = last_l = last_d = 0.0
    costs = zip(a.tolist(), link.tolist(), u.tolist(), strict=True)
    for k, (seconds, moving, using) in enumerate(costs):
        last_a = max(last_a, done[k - slots] if k >= slots else 0.0) + seconds
        last_l = max(last_l, last_a) + moving
        last_d = max(last_d, last_l) + using
        made.append(last_a)
        carried.append(last_l)
        done.append(last_d)
    return Ends(np.array(made), np.array(carried), np.array(done))


def _scan(ready: Floats, cost: Floats) -> Floats:
    """End times of a first-in first-out stage: end[k] = max(end[k-1], ready[k]) + cost[k]."""
    total = np.cumsum(cost)
    ends: Floats = total + np.maximum.accumulate(ready - (total - cost))
    return ends


def shared_pipeline(
    a: Floats, link: Floats, u: Floats, need_a: Floats, need_u: Floats, slots: int
) -> tuple[Ends, Floats, Floats]:
    """Run the chunks on engines that share one memory; return ends and the chunks' durations.

    need_a, need_u are the shares of the memory's rate that each chunk takes when it runs alone. Two
    chunks that want more than all of it share max-min fairly and slow down; alone, a chunk has
    what it needs. Where no two chunks want too much this is `pipeline`.
    """
    count = len(a)
    costs = (a.tolist(), u.tolist())
    needs = (need_a.tolist(), need_u.tolist())
    moving = link.tolist()
    ends: tuple[list[float], list[float]] = ([], [])
    begun: tuple[list[float], list[float]] = ([], [])
    arrived: list[float] = []
    left = [-1.0, -1.0]  # seconds that the running chunk would still take alone; < 0: none runs
    now = 0.0
    while len(ends[1]) < count:
        made, used = len(ends[0]), len(ends[1])
        if left[0] < 0 and made < count and made - slots < used:
            left[0] = costs[0][made]
            begun[0].append(now)
        arrival = arrived[used] if used < len(arrived) else float("inf")
        if left[1] < 0 and arrival <= now:
            left[1] = costs[1][used]
            begun[1].append(now)
        first = needs[0][made] if left[0] >= 0 else 0.0
        second = needs[1][used] if left[1] >= 0 else 0.0
        speed = _fair_speeds(first, second)
        due = [now + left[e] / speed[e] if left[e] >= 0 else float("inf") for e in (0, 1)]
        if left[1] < 0:
            due.append(arrival)
        then = min(due)
        for engine in (0, 1):
            if left[engine] < 0:
                continue
            if due[engine] <= then:
                left[engine] = -1.0
                ends[engine].append(then)
                if engine == 0:
                    before = arrived[-1] if arrived else 0.0
                    arrived.append(max(before, then) + moving[made])
            else:
                left[engine] -= (then - now) * speed[engine]
                left[engine] = max(left[engine], 0.0)
        now = then
    found = Ends(np.array(ends[0]), np.array(arrived), np.array(ends[1]))
    return found, found.producer_s - np.array(begun[0]), found.consumer_s - np.array(begun[1])


def _fair_speeds(first: float, second: float) -> tuple[float, float]:
    """Speeds, 1 is alone, of two users of a rate of 1 under max-min fairness."""
    if first + second <= 1.0:
        return 1.0, 1.0
    if first <= 0.5:
        return 1.0, (1.0 - first) / second
    if second <= 0.5:
        return (1.0 - second) / first, 1.0
    return 0.5 / first, 0.5 / second


def simulate(a: Floats, link: Floats, u: Floats, slots: int) -> Ends:
    """Run the same chunks in SimPy: three processes, a container of free buffers, two stores."""
    import simpy

    env = simpy.Environment()
    free = simpy.Container(env, capacity=slots, init=slots)
    made, carried = simpy.Store(env), simpy.Store(env)
    ends = Ends(*(np.zeros(len(a)) for _ in range(3)))
    Process = Generator[simpy.Event, Any, None]

    def producer() -> Process:
        for k, seconds in enumerate(a.tolist()):
            yield free.get(1)
            yield env.timeout(seconds)
            ends.producer_s[k] = env.now
            yield made.put(k)

    def carrier() -> Process:
        for seconds in link.tolist():
            k = yield made.get()
            yield env.timeout(seconds)
            ends.link_s[k] = env.now
            yield carried.put(k)

    def consumer() -> Process:
        for seconds in u.tolist():
            k = yield carried.get()
            yield env.timeout(seconds)
            ends.consumer_s[k] = env.now
            yield free.put(1)

    for process in (producer(), carrier(), consumer()):
        env.process(process)
    env.run()
    return ends


def closed_form(a: Floats, u: Floats) -> float:
    """Makespan of two stages without a link and with buffers enough.

    T = max over k of (a[0] + ... + a[k] + u[k] + ... + u[K-1]).
    """
    if not len(a):
        return 0.0
    return float((np.cumsum(a) + np.cumsum(u[::-1])[::-1]).max())


def lower_bound(a: Floats, u: Floats) -> float:
    """Lower bound over all orders of the chunks: max(sum a + min u, min a + sum u)."""
    if not len(a):
        return 0.0
    return float(max(a.sum() + u.min(), a.min() + u.sum()))


def best_chunks(producer_s: float, consumer_s: float, overhead_s: float, most: int) -> int:
    """The closed form K* = sqrt(min(A, U) / o), between 1 and `most`."""
    smaller = min(producer_s, consumer_s)
    if overhead_s <= 0:
        return most
    return int(min(max(round((smaller / overhead_s) ** 0.5), 1), most))


def johnson(a: Floats, u: Floats) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Order of the chunks that makes two stages shortest (Johnson's rule, Johnson 1954).

    Chunks that the producer finishes sooner than the consumer come first, by rising a; then the
    others, by falling u.
    """
    first = np.flatnonzero(a < u)
    rest = np.flatnonzero(a >= u)
    return np.concatenate(
        [first[np.argsort(a[first], kind="stable")], rest[np.argsort(-u[rest], kind="stable")]]
    )
