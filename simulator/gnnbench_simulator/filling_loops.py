"""Progressive filling of very many flows, as machine code; numba is loaded with this file.

Flows of equal path, usage, weight and cap have equal rates, so they are filled as one flow that
takes as much as all of them. Most flows become equal when links that never fill are left out. These
are not known beforehand: filling starts with the links that are tightest for some flow, and is
repeated with every link that the rates found would overload. Rates that overload none are those of
all links together, because max-min fair rates are unique: each flow is at its cap, or is among the
fastest on a link that is full.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gnnbench.costs.facts import Floats

Ints = npt.NDArray[np.int64]
_WORTH_MERGING = 50_000  # flows; fewer are filled sooner than compared
_ATTEMPTS = 4  # at leaving out links
_NEAR = 1.5  # times the lowest level on a path up to which a link is kept at first
_SMALLER = 8  # times fewer classes than flows, or flows are filled one by one

_compiled: Any = njit(cache=True, error_model="numpy")


def fill(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> tuple[Floats, Ints]:
    """As `water_filling.filled`."""
    narrow = links.astype(np.int32)  # half of the memory to read
    # Where all usages are one, or all weights, a single number is read over and over.
    each = (usage[:1], 0) if len(usage) and (usage == usage[0]).all() else (usage, 1)
    own = (weight[:1], 0) if len(weight) and (weight == weight[0]).all() else (weight, 1)
    if len(weight) >= _WORTH_MERGING:
        kept = _tightest(starts, narrow, *each, *own, capacity)
        for _ in range(_ATTEMPTS):
            found = _merged(starts, narrow, *each, *own, cap, capacity, kept)
            if found is None:
                break
            rates, limits = found
            over = _overloaded(starts, narrow, *each, rates, capacity) & ~kept
            if not over.any():
                return rates, limits
            kept |= over
    return _filled(starts, narrow, usage, weight, cap, capacity)


def _merged(
    starts: Ints,
    links: Any,
    usage: Floats,
    by_entry: int,
    weight: Floats,
    by_flow: int,
    cap: Floats,
    capacity: Floats,
    kept: Any,
) -> tuple[Floats, Ints] | None:
    """Fill classes of flows that are equal on the links kept; None if there are too many."""
    most, room = len(cap) // _SMALLER, len(links) // _SMALLER
    values = usage.view(np.uint64), by_entry, weight.view(np.uint64), by_flow, cap.view(np.uint64)
    of, *classes, number = _classes(starts, links, *values, kept, most, room)
    if number < 0:
        return None
    begins, path, takes, weights, caps, size = classes
    begins, size = begins[: number + 1], size[:number]
    # A class takes as much as all of its flows.
    takes = takes[: begins[-1]].view(np.float64) * np.repeat(size, np.diff(begins))
    each = weights[:number].view(np.float64), caps[:number].view(np.float64)
    rates, limits = _filled(begins, path[: begins[-1]], takes, *each, capacity)
    return rates[of], limits[of]


def _filled(
    starts: Ints, links: Any, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> tuple[Floats, Ints]:
    most = cap / weight
    capped = np.flatnonzero(np.isfinite(most))
    order = capped[np.argsort(most[capped], kind="stable")]
    found: tuple[Floats, Ints] = _fill(starts, links, usage, weight, cap, capacity, order)
    return found


@_compiled
def _fill(starts, links, usage, weight, cap, capacity, order):  # type: ignore[no-untyped-def]
    """Progressive filling; `order` is that of the flows with a cap by cap / weight."""
    count, width = len(weight), len(capacity)
    rates = cap.copy()
    limits = np.full(count, -1, dtype=np.int64)
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
    users = np.empty(first[width], dtype=np.int32)
    ahead = first[:width].copy()
    for f in range(count):
        for k in range(starts[f], starts[f + 1]):
            users[ahead[links[k]]] = f
            ahead[links[k]] += 1
    heap = [(left[at] / asked[at], at) for at in range(width) if active[at] > 0]
    heapq.heapify(heap)
    capped, bounded = 0, len(order)
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
        risen = False
        while capped < bounded and cap[order[capped]] <= now * weight[order[capped]]:
            f = order[capped]
            capped += 1
            if done[f]:
                continue
            done[f] = True
            for k in range(starts[f], starts[f + 1]):
                left[links[k]] -= usage[k] * cap[f]
                asked[links[k]] -= usage[k] * weight[f]
                active[links[k]] -= 1
            # This link's level may have risen, and another be the lowest now.
            if active[at] == 0 or max(left[at], 0.0) / asked[at] > now * (1.0 + 1e-12):
                risen = True
                break
        if risen:
            continue
        for u in range(first[at], first[at + 1]):
            f = users[u]
            if done[f]:
                continue
            done[f] = True
            rates[f] = now * weight[f]
            limits[f] = at
            for k in range(starts[f], starts[f + 1]):
                left[links[k]] -= usage[k] * rates[f]
                asked[links[k]] -= usage[k] * weight[f]
                active[links[k]] -= 1
        active[at] = 0
    return rates, limits


@_compiled
def _tightest(starts, links, usage, by_entry, weight, by_flow, capacity):  # type: ignore[no-untyped-def]
    """Whether a link is among the first to fill on some flow's path if all rise alike, [links]."""
    width = len(capacity)
    asked = np.zeros(width)
    for f in range(len(starts) - 1):
        for k in range(starts[f], starts[f + 1]):
            asked[links[k]] += usage[k * by_entry] * weight[f * by_flow]
    level = np.empty(width)
    for at in range(width):
        level[at] = capacity[at] / asked[at] if asked[at] > 0 else np.inf
    kept = np.zeros(width, dtype=np.bool_)
    for f in range(len(starts) - 1):
        low = np.inf
        for k in range(starts[f], starts[f + 1]):
            low = min(low, level[links[k]])
        for k in range(starts[f], starts[f + 1]):
            if level[links[k]] <= _NEAR * low:
                kept[links[k]] = True
    return kept


@_compiled
def _overloaded(starts, links, usage, by_entry, rates, capacity):  # type: ignore[no-untyped-def]
    """Whether flows at these rates exceed the capacity of a link, [links]."""
    load = np.zeros(len(capacity))
    for f in range(len(rates)):
        for k in range(starts[f], starts[f + 1]):
            load[links[k]] += usage[k * by_entry] * rates[f]
    return load > capacity


@_compiled
def _classes(starts, links, usage, by_entry, weight, by_flow, cap, kept, most, room):  # type: ignore[no-untyped-def]
    """Classes of flows that are equal on the links kept: in usage, weight, cap, and order of links.

    At most `most` classes, with at most `room` links in all. Usages, weights and caps are given and
    returned by their bits.

    Returns:
        The class of each flow; of the classes, where their links begin, links, usages, weights,
        caps and numbers of flows; how many classes there are, -1 if too many.
    """
    count = len(cap)
    of = np.empty(count, dtype=np.int32)
    begins = np.zeros(most + 1, dtype=np.int64)
    path, takes = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.uint64)
    weights, caps = np.empty(most, dtype=np.uint64), np.empty(most, dtype=np.uint64)
    marks = np.empty(most, dtype=np.uint64)
    size = np.zeros(most)
    number, end = 0, 0
    # Open addressing in a table that stays small enough for the cache.
    slots = 4096
    table = np.full(slots, -1, dtype=np.int32)
    odd, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    for f in range(count):
        own_weight, own_cap = weight[f * by_flow], cap[f]
        mark = (own_weight ^ (own_cap * odd)) * odd
        for k in range(starts[f], starts[f + 1]):
            if kept[links[k]]:
                mark ^= mark >> shift
                mark = (mark ^ np.uint64(links[k]) ^ usage[k * by_entry]) * odd
        mark ^= mark >> shift
        slot = np.int64(mark & np.uint64(slots - 1))
        while True:
            known = table[slot]
            if known < 0:
                break
            if marks[known] == mark and caps[known] == own_cap and weights[known] == own_weight:
                at, last, same = begins[known], begins[known + 1], True
                for k in range(starts[f], starts[f + 1]):
                    if kept[links[k]]:
                        if at == last or path[at] != links[k] or takes[at] != usage[k * by_entry]:
                            same = False
                            break
                        at += 1
                if same and at == last:
                    break
            slot = (slot + 1) & (slots - 1)
        if known < 0:
            if number == most:
                return of, begins, path, takes, weights, caps, size, -1
            for k in range(starts[f], starts[f + 1]):
                if kept[links[k]]:
                    if end == room:
                        return of, begins, path, takes, weights, caps, size, -1
                    path[end], takes[end] = links[k], usage[k * by_entry]
                    end += 1
            known = number
            number += 1
            table[slot] = known
            marks[known], weights[known], caps[known] = mark, own_weight, own_cap
            begins[number] = end
            if 4 * number > slots:
                slots *= 4
                table = np.full(slots, -1, dtype=np.int32)
                for c in range(number):
                    slot = np.int64(marks[c] & np.uint64(slots - 1))
                    while table[slot] >= 0:
                        slot = (slot + 1) & (slots - 1)
                    table[slot] = c
        of[f] = known
        size[known] += 1
    return of, begins, path, takes, weights, caps, size, number
