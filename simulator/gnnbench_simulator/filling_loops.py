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
_SMALLER = 8  # times fewer classes than flows, or flows are filled one by one

_compiled: Any = njit(cache=True, error_model="numpy")


def fill(
    starts: Ints, links: Ints, usage: Floats, weight: Floats, cap: Floats, capacity: Floats
) -> tuple[Floats, Ints]:
    """As `water_filling.filled`."""
    narrow = links.astype(np.int32)  # half of the memory to read
    if len(weight) >= _WORTH_MERGING:
        kept = _tightest(starts, narrow, usage, weight, capacity)
        for _ in range(_ATTEMPTS):
            found = _merged(starts, narrow, usage, weight, cap, capacity, kept)
            if found is None:
                break
            rates, limits = found
            over = _overloaded(starts, narrow, usage, rates, capacity) & ~kept
            if not over.any():
                return rates, limits
            kept |= over
    return _filled(starts, narrow, usage, weight, cap, capacity)


def _merged(
    starts: Ints,
    links: Any,
    usage: Floats,
    weight: Floats,
    cap: Floats,
    capacity: Floats,
    kept: Any,
) -> tuple[Floats, Ints] | None:
    """Fill classes of flows that are equal on the links kept; None if there are too many."""
    bits = [values.view(np.uint64) for values in (usage, weight, cap)]
    most = len(weight) // _SMALLER
    of, first, size, number = _classes(starts, links, *bits, kept, most)
    if number < 0:
        return None
    first, size = first[:number], size[:number]
    path = _paths(starts, links, usage, first, size, kept)
    rates, limits = _filled(*path, weight[first], cap[first], capacity)
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
def _tightest(starts, links, usage, weight, capacity):  # type: ignore[no-untyped-def]
    """Whether a link is the first to fill on some flow's path if all flows rise alike, [links]."""
    width = len(capacity)
    asked = np.zeros(width)
    for f in range(len(weight)):
        for k in range(starts[f], starts[f + 1]):
            asked[links[k]] += usage[k] * weight[f]
    level = np.empty(width)
    for at in range(width):
        level[at] = capacity[at] / asked[at] if asked[at] > 0 else np.inf
    kept = np.zeros(width, dtype=np.bool_)
    for f in range(len(weight)):
        low, which = np.inf, -1
        for k in range(starts[f], starts[f + 1]):
            if level[links[k]] < low:
                low, which = level[links[k]], links[k]
        if which >= 0:
            kept[which] = True
    return kept


@_compiled
def _overloaded(starts, links, usage, rates, capacity):  # type: ignore[no-untyped-def]
    """Whether flows at these rates exceed the capacity of a link, [links]."""
    load = np.zeros(len(capacity))
    for f in range(len(rates)):
        for k in range(starts[f], starts[f + 1]):
            load[links[k]] += usage[k] * rates[f]
    return load > capacity


@_compiled
def _classes(starts, links, usage, weight, cap, kept, most):  # type: ignore[no-untyped-def]
    """Classes of flows that are equal on the links kept, at most `most` of them.

    `usage`, `weight` and `cap` are the bits of the values.

    Returns:
        The class of each flow; the first flow of each class, and how many flows it has; the number
        of classes, -1 if there are more than `most`.
    """
    count = len(weight)
    slots = 16
    while slots < 4 * most:
        slots *= 2
    table = np.full(slots, -1, dtype=np.int32)
    of = np.empty(count, dtype=np.int32)
    first = np.empty(most, dtype=np.int64)
    marks = np.empty(most, dtype=np.uint64)
    size = np.zeros(most, dtype=np.int64)
    number = 0
    odd = np.uint64(0x9E3779B97F4A7C15)
    shift = np.uint64(32)
    for f in range(count):
        mark = (weight[f] ^ (cap[f] * odd)) * odd
        for k in range(starts[f], starts[f + 1]):
            if kept[links[k]]:
                mark ^= mark >> shift
                mark = (mark ^ np.uint64(links[k]) ^ usage[k]) * odd
        mark ^= mark >> shift
        slot = np.int64(mark & np.uint64(slots - 1))
        while True:
            known = table[slot]
            if known < 0:
                if number == most:
                    return of, first, size, -1
                table[slot] = number
                first[number], marks[number] = f, mark
                known = number
                number += 1
                break
            if marks[known] == mark and _equal(
                f, first[known], starts, links, usage, weight, cap, kept
            ):
                break
            slot = (slot + 1) & (slots - 1)
        of[f] = known
        size[known] += 1
    return of, first, size, number


@_compiled
def _equal(f, other, starts, links, usage, weight, cap, kept):  # type: ignore[no-untyped-def]
    """Whether two flows have the same links kept in one order, usage, weight and cap."""
    if weight[f] != weight[other] or cap[f] != cap[other]:
        return False
    k, end = starts[other], starts[other + 1]
    for own in range(starts[f], starts[f + 1]):
        if not kept[links[own]]:
            continue
        while k < end and not kept[links[k]]:
            k += 1
        if k == end or links[k] != links[own] or usage[k] != usage[own]:
            return False
        k += 1
    while k < end:
        if kept[links[k]]:
            return False
        k += 1
    return True


@_compiled
def _paths(starts, links, usage, first, size, kept):  # type: ignore[no-untyped-def]
    """Paths of classes over the links kept: a class takes as much as all of its flows."""
    count, total = len(first), 0
    for c in range(count):
        for k in range(starts[first[c]], starts[first[c] + 1]):
            if kept[links[k]]:
                total += 1
    begins = np.zeros(count + 1, dtype=np.int64)
    path = np.empty(total, dtype=np.int32)
    takes = np.empty(total)
    at = 0
    for c in range(count):
        for k in range(starts[first[c]], starts[first[c] + 1]):
            if kept[links[k]]:
                path[at], takes[at] = links[k], usage[k] * size[c]
                at += 1
        begins[c + 1] = at
    return begins, path, takes
