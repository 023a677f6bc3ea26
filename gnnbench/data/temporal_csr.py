"""The temporal CSR: all edges of a stream in one array per column, each row in order of time.

Built once, as systems for static graphs do; it cannot grow. It draws what `TemporalStore` draws,
without the arithmetic of blocks: the baseline of the store where the whole stream is known, and an
oracle for it.

    bytes = 20 per stored edge + 8 (V + 1)

Source: temporal reference section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gnnbench.data.draws import compiled
from gnnbench.data.temporal_picks import NEVER, NO_LIMIT, take

Ids = NDArray[np.int64]
STORED_BYTES = 20


class Rows(NamedTuple):
    """The arrays of a temporal CSR, as compiled loops take them.

    `indptr` int64 [V + 1]; `neighbours` int32, `times` and `events` int64 [2 E].
    """

    indptr: Ids
    neighbours: NDArray[np.int32]
    times: Ids
    events: Ids


def csr_bytes(num_nodes: int, stored: int) -> int:
    """Bytes of a temporal CSR of so many stored edges, two per event."""
    return STORED_BYTES * stored + 8 * (num_nodes + 1)


class TemporalCsr:
    """Edges of events, both directions, by vertex and time.

    Args:
        num_nodes: V.
        sources, destinations: [E].
        times: int64 [E], never falling.
        first_event: id of the first of them.
    """

    def __init__(
        self,
        num_nodes: int,
        sources: NDArray[Any],
        destinations: NDArray[Any],
        times: Ids,
        first_event: int = 0,
    ) -> None:
        ends = np.ascontiguousarray(sources), np.ascontiguousarray(destinations)
        indptr = np.zeros(num_nodes + 1, np.int64)
        for end in ends:
            indptr[1:] += np.bincount(end, minlength=num_nodes)
        np.cumsum(indptr, out=indptr)
        count = 2 * len(times)
        self.num_nodes = num_nodes
        self.rows = Rows(
            indptr, np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64)
        )
        # Events are in order of time, so one pass fills every row in order.
        _fill(*ends, np.ascontiguousarray(times), first_event, indptr[:-1].copy(), self.rows)

    @property
    def num_bytes(self) -> int:
        """By the formula of the module."""
        return csr_bytes(self.num_nodes, len(self.rows.times))

    def draw(
        self,
        nodes: Ids,
        times: Ids,
        fanout: int,
        key: int,
        *,
        uniform: bool,
        window: int = 0,
        since: int = NEVER,
        before_event: int = -1,
    ) -> tuple[Ids, Ids, Ids, Ids, Ids]:
        """Draw edges of queries, see `TemporalStore.draw`."""
        count, rows = len(nodes), self.rows
        lows, highs, indptr = (np.empty(count + more, np.int64) for more in (0, 0, 1))
        limit = NO_LIMIT if before_event < 0 else before_event
        _count(nodes, times, fanout, window, since, limit, rows, lows, highs, indptr)
        found = tuple(np.empty(int(indptr[-1]), np.int64) for _ in range(4))
        bits = np.uint64(key)
        _draw(nodes, times, lows, highs, indptr, fanout, bits, uniform, rows, *found)
        return indptr, found[0], found[1], found[2], found[3]


@njit(inline="always")
def seen(node: Any, time: Any, window: Any, since: Any, limit: Any, rows: Any) -> Any:
    """Positions low, high of the edges that a query may see; see `TemporalStore.draw`."""
    start = rows.indptr[node]
    low, high = start, rows.indptr[node + 1]
    while low < high:
        middle = (low + high) >> 1
        if rows.times[middle] < time and rows.events[middle] < limit:
            low = middle + 1
        else:
            high = middle
    stop = low
    oldest = since
    if window > 0:
        oldest = max(oldest, time - window)
    low, high = start, stop
    if oldest > NEVER:
        while low < high:
            middle = (low + high) >> 1
            if rows.times[middle] < oldest:
                low = middle + 1
            else:
                high = middle
    return low, stop


@compiled
def _count(
    nodes: Any,
    when: Any,
    fanout: int,
    window: int,
    since: int,
    limit: int,
    rows: Any,
    lows: Any,
    highs: Any,
    indptr: Any,
) -> None:
    """Positions that each query may see, and where the edges that it draws begin."""
    indptr[0] = 0
    for q in range(len(nodes)):
        lows[q], highs[q] = seen(nodes[q], when[q], window, since, limit, rows)
        indptr[q + 1] = indptr[q] + min(highs[q] - lows[q], fanout)


@compiled
def _draw(
    nodes: Any,
    when: Any,
    lows: Any,
    highs: Any,
    indptr: Any,
    fanout: int,
    key: Any,
    uniform: bool,
    rows: Any,
    neighbours: Any,
    times: Any,
    events: Any,
    deltas: Any,
) -> None:
    """Draw the edges of each query and read them."""
    picked = np.empty(fanout, np.int64)
    for q in range(len(nodes)):
        at = indptr[q]
        picks = indptr[q + 1] - at
        take(nodes[q], when[q], lows[q], highs[q], picks, key, uniform, picked, 0)
        for slot in range(picks):
            position = picked[slot]
            neighbours[at + slot] = rows.neighbours[position]
            times[at + slot] = rows.times[position]
            events[at + slot] = rows.events[position]
            deltas[at + slot] = when[q] - rows.times[position]


@compiled
def _fill(
    sources: Any, destinations: Any, when: Any, first_event: int, ends: Any, rows: Any
) -> None:
    for e in range(len(when)):
        for turn in range(2):
            node, other = sources[e], destinations[e]
            if turn:
                node, other = other, node
            at = ends[node]
            ends[node] = at + 1
            rows.neighbours[at], rows.times[at] = other, when[e]
            rows.events[at] = first_event + e
