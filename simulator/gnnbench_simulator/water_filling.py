"""Max-min fair rates of many flows at once, some of which load their links unevenly.

A flow's rate is in units of its own work per second. At a rate of r it takes `usage` * r of each
link on its path, and its fair share is `weight` * r: all flows rise together in r / weight until a
link is full or a flow is at its cap (progressive filling, simulation 4.8). A message has work in
bytes, usage and weight 1. A collective has work 1, the bytes that it puts on a link as usage, and
one over the bytes of a message as weight: each of its messages gets the share of a message, and
all of them progress together.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats

Ints = npt.NDArray[np.int64]
_COMPILED_FROM = 20_000
"""Entries of all paths so far from which compiled code pays for the time that loading it takes."""


def fair_rates(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> Floats:
    """Rates of flows, [flows].

    Args:
        starts: flow f's links are those from starts[f] to starts[f + 1], [flows + 1].
        links: numbers of links, each at most once per flow, [entries].
        usage: of each link by a unit of the flow's work, above 0, [entries].
        weight: fair share of a flow, above 0, [flows].
        cap: highest rate of each flow; infinite where there is none, [flows].
        capacity: units per second of each link, [links].
    """
    order = np.argsort(cap / weight, kind="stable")
    global _entries
    _entries += len(links)
    fill: Any = _fill if _entries < _COMPILED_FROM else _compiled()
    return np.asarray(fill(starts, links, usage, weight, cap, capacity, order))


def _fill(
    starts: Ints,
    links: Ints,
    usage: Floats,
    weight: Floats,
    cap: Floats,
    capacity: Floats,
    order: Ints,
) -> Floats:
    """Progressive filling; `order` is that of the flows by cap / weight."""
    count, width = len(weight), len(capacity)
    rates = np.zeros(count)
    done = np.zeros(count, dtype=np.bool_)
    left = capacity.copy()
    asked = np.zeros(width)
    active = np.zeros(width, dtype=np.int64)
    first = np.zeros(width + 1, dtype=np.int64)
    for f in range(count):
        for k in range(starts[f], starts[f + 1]):
            asked[links[k]] += usage[k] * weight[f]
            active[links[k]] += 1
    for at in range(width):
        first[at + 1] = first[at] + active[at]
    # The flows of each link, so that a full link finds those that freeze.
    users = np.empty(first[width], dtype=np.int64)
    ahead = first[:width].copy()
    for f in range(count):
        for k in range(starts[f], starts[f + 1]):
            users[ahead[links[k]]] = f
            ahead[links[k]] += 1
    heap = [(left[at] / asked[at], at) for at in range(width) if active[at] > 0]
    heapq.heapify(heap)
    capped = 0
    while len(heap) > 0:
        level, at = heap[0]
        if active[at] == 0:
            heapq.heappop(heap)
            continue
        # Levels only rise as other flows freeze, so an outdated one is corrected when it comes up.
        now = max(left[at], 0.0) / asked[at]
        if now > level * (1.0 + 1e-12):
            heapq.heapreplace(heap, (now, at))
            continue
        while capped < count and (
            done[order[capped]] or cap[order[capped]] <= now * weight[order[capped]]
        ):
            f = order[capped]
            capped += 1
            if done[f]:
                continue
            done[f] = True
            rates[f] = cap[f]
            for k in range(starts[f], starts[f + 1]):
                left[links[k]] -= usage[k] * rates[f]
                asked[links[k]] -= usage[k] * weight[f]
                active[links[k]] -= 1
            # This link's level may have risen, and another be the lowest now.
            if active[at] == 0 or max(left[at], 0.0) / asked[at] > now * (1.0 + 1e-12):
                break
        else:
            for u in range(first[at], first[at + 1]):
                f = users[u]
                if done[f]:
                    continue
                done[f] = True
                rates[f] = now * weight[f]
                for k in range(starts[f], starts[f + 1]):
                    left[links[k]] -= usage[k] * rates[f]
                    asked[links[k]] -= usage[k] * weight[f]
                    active[links[k]] -= 1
            active[at] = 0
    for f in range(count):
        if not done[f]:
            rates[f] = cap[f]
    return rates


_KNOWN: list[Any] = []
_entries = 0


def _compiled() -> Any:
    """`_fill` as machine code; numba is loaded on first use."""
    if not _KNOWN:
        from numba import njit

        _KNOWN.append(njit(cache=True)(_fill))
    return _KNOWN[0]
