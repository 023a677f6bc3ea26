"""The dynamic graph store: per-vertex lists of edges in order of time, in blocks that double.

Every vertex has a list of its edges, oldest first; the edge at position p of it lies in block b,
whose capacity is `first * 2**min(b, m)`, m = log2(block / first): blocks double until they have
`block` slots. So position -> (block, offset) is arithmetic and no list is walked. A directory per
vertex holds the addresses of its blocks; it doubles, too.

    bytes = 20 per slot + 44 per vertex + 8 per directory entry

A slot is neighbour int32, time int64, event int64. The pool of slots grows by a quarter when it is
full; blocks that have expired are given out again.

Deviation from GNNFlow's store: it sizes a new block by the group that is inserted and walks linked
lists; here an insertion in pieces gives the same blocks as one at once. Times are int64, not
float32.

Source: temporal reference sections 3.1 and 3.2, invariants S1-S9.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gnnbench.data.draws import compiled
from gnnbench.errors import DataError

Ids = NDArray[np.int64]

FIRST, BLOCK = 4, 256
"""Capacities of the first block of a vertex and of its largest ones."""
SLOT_BYTES, VERTEX_BYTES, ENTRY_BYTES = 20, 44, 8
NEVER = -(2**63)
_ROOM = 1024  # slots and directory entries to begin with
_NONE = -1
NO_LIMIT = np.iinfo(np.int64).max
_EVERYONE = np.empty(0, np.bool_)


class _Blocks(NamedTuple):
    """What turns (vertex, position) into a slot, as compiled loops take it."""

    first: int
    block: int
    directory: Ids
    starts: Ids
    first_block: Ids


class TemporalStore:
    """Edges of a dynamic graph by vertex and time.

    Both directions of an event are stored, under the event's id. Insertion must be in order of
    time per vertex, and events of one time in order of their ids: streams are.

    Args:
        num_nodes: V.
        first, block: slots of the first block and of the largest; powers of two.
        owned: bool [V], the vertices whose edges are stored here; None is all of them.
    """

    def __init__(
        self,
        num_nodes: int,
        *,
        first: int = FIRST,
        block: int = BLOCK,
        owned: NDArray[np.bool_] | None = None,
    ) -> None:
        if first < 1 or block < first or first & (first - 1) or block & (block - 1):
            raise ValueError(f"first {first} and block {block}: powers of two, first <= block")
        self.num_nodes, self.first, self.block = num_nodes, first, block
        self.owned = _EVERYONE if owned is None else owned
        self.neighbours = np.empty(_ROOM, np.int32)
        self.times = np.empty(_ROOM, np.int64)
        self.events = np.empty(_ROOM, np.int64)
        self.directory = np.empty(_ROOM, np.int64)
        self.base = np.zeros(num_nodes, np.int64)
        self.end = np.zeros(num_nodes, np.int64)
        self.last = np.full(num_nodes, NEVER, np.int64)
        self.directory_start = np.zeros(num_nodes, np.int64)
        self.first_block = np.zeros(num_nodes, np.int64)
        self.directory_room = np.zeros(num_nodes, np.int32)
        # Slots and directory entries given out; then the newest freed block of each size.
        self.tops = np.zeros(2, np.int64)
        self.free = np.full((block // first).bit_length(), _NONE, np.int64)
        self.expired = NEVER
        """No edge before this time is left."""

    @property
    def num_edges(self) -> int:
        """Stored directed edges: two per event."""
        return int((self.end - self.base).sum())

    @property
    def num_bytes(self) -> int:
        """By the formula of the module."""
        slots, entries = len(self.times), len(self.directory)
        return SLOT_BYTES * slots + VERTEX_BYTES * self.num_nodes + ENTRY_BYTES * entries

    def degrees(self) -> Ids:
        """Living edges of each vertex."""
        return self.end - self.base

    def insert(
        self, sources: NDArray[Any], destinations: NDArray[Any], times: Ids, first_event: int
    ) -> None:
        """Insert consecutive events, each in both directions (a self loop twice as well).

        Args:
            sources, destinations: [n].
            times: int64 [n], never falling.
            first_event: id of the first of them.

        Raises:
            DataError: an event is older than the newest edge of one of its ends, or than what has
                expired.
        """
        ends = np.ascontiguousarray(sources), np.ascontiguousarray(destinations)
        when = np.ascontiguousarray(times)
        at, stop = 0, 2 * len(times)
        while at < stop:
            at = _insert(
                *ends,
                when,
                first_event,
                at,
                self._layout(),
                self.neighbours,
                self.times,
                self.events,
                self.end,
                self.last,
                self.directory_room,
                self.tops,
                self.free,
                self.expired,
                self.owned,
            )
            if at < 0:
                late = -1 - at
                raise DataError(
                    "stream",
                    f"event {first_event + late // 2} at {times[late // 2]} is older than an edge "
                    "that its ends have, or than what has expired; insert in order of time",
                )
            if at < stop:
                self._grow()

    def expire(self, before: int) -> None:
        """Forget all edges older than `before`; their whole blocks are given out again."""
        self.expired = max(self.expired, int(before))
        _expire(before, self._layout(), self.times, self.events, self.base, self.end, self.free)

    def bounds(
        self,
        nodes: Ids,
        times: Ids,
        *,
        window: int = 0,
        since: int = NEVER,
        before_event: int = -1,
    ) -> tuple[Ids, Ids]:
        """Positions lo..hi-1 of the edges that a query (node, time) may see.

        Those are `time - window <= t < time`: strictly earlier, never merely inserted before.

        Args:
            nodes, times: of the queries, int64 [Q].
            window: 0 is unlimited.
            since: hide edges before this time, as if they had expired.
            before_event: hide the events with this id and later ones, as if they had not been
                inserted; -1 hides none.
        """
        low, high = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.int64)
        limit = NO_LIMIT if before_event < 0 else before_event
        where = self._layout()
        _bounds(
            nodes,
            times,
            window,
            since,
            limit,
            where,
            self.times,
            self.events,
            self.base,
            self.end,
            low,
            high,
        )
        return low, high

    def edges(self, nodes: Ids, positions: Ids) -> tuple[Ids, Ids, Ids]:
        """Neighbours, times and events of the edges at these positions of these vertices."""
        found = tuple(np.empty(len(nodes), np.int64) for _ in range(3))
        held = self.neighbours, self.times, self.events
        _read(nodes, positions, self._layout(), *held, *found)
        return found[0], found[1], found[2]

    def blocks(self, node: int) -> list[tuple[int, int]]:
        """Address and capacity of each block of a vertex, oldest first; for tests."""
        first, last = int(self.first_block[node]), int(self.end[node]) - 1
        if last < self.base[node]:
            return []
        count = block_of(last, self.first, self.block) - first + 1
        start = int(self.directory_start[node])
        return [
            (int(self.directory[start + k]), self.first << min(first + k, len(self.free) - 1))
            for k in range(count)
        ]

    def _layout(self) -> _Blocks:
        return _Blocks(
            self.first, self.block, self.directory, self.directory_start, self.first_block
        )

    def _grow(self) -> None:
        """Give room to what is nearly full."""
        slots, entries = self.tops.tolist()
        if slots + self.block > len(self.times):
            for array in (self.neighbours, self.times, self.events):
                array.resize(len(array) + len(array) // 4 + self.block, refcheck=False)
        # A directory that moves takes at most as many entries as all of its earlier ones.
        need = entries + 2 * int(self.directory_room.max(initial=0)) + 1
        if need > len(self.directory):
            grown = len(self.directory) + len(self.directory) // 4
            self.directory.resize(max(grown, need), refcheck=False)


def block_of(position: int, first: int, block: int) -> int:
    """The block of a vertex in which a position lies."""
    return int(_block_of(position, first, block)[0])


@njit(inline="always")
def _block_of(position: Any, first: Any, block: Any) -> Any:
    """Number of the block of a position, the position's place in it, and its size class.

    The capacity of a block is first * 2**class.
    """
    size = first
    start = 0
    size_class = 0
    while size < block and position >= start + size:
        start += size
        size *= 2
        size_class += 1
    # A division only where there are several blocks of the largest size.
    whole = (position - start) // size if position >= start + size else 0
    return size_class + whole, position - start - whole * size, size_class


@njit(inline="always")
def _lower_bound(
    node: Any, low: Any, high: Any, time: Any, limit: Any, where: Any, times: Any, events: Any
) -> Any:
    """The first position in low..high whose edge is not before `time` and before event `limit`.

    Times and ids rise together, so both conditions are one. First the block is found by the first
    edges of blocks, which lie at addresses of the directory, then the edge within it.
    """
    if low < high:
        oldest, _, _ = _block_of(low, where.first, where.block)
        newest, _, _ = _block_of(high - 1, where.first, where.block)
        entry = where.starts[node] - where.first_block[node]
        while oldest < newest:
            middle = (oldest + newest + 1) >> 1
            slot = where.directory[entry + middle]
            if times[slot] < time and events[slot] < limit:
                oldest = middle
            else:
                newest = middle - 1
        start, size = _extent(oldest, where.first, where.block)
        base = where.directory[entry + oldest] - start
        low, high = max(low, start), min(high, start + size)
        while low < high:
            middle = (low + high) >> 1
            if times[base + middle] < time and events[base + middle] < limit:
                low = middle + 1
            else:
                high = middle
    return low


@njit(inline="always")
def _extent(number: Any, first: Any, block: Any) -> Any:
    """First position and capacity of a block."""
    start = 0
    size = first
    before = 0
    while size < block and before < number:
        start += size
        size *= 2
        before += 1
    return start + (number - before) * size, size


@compiled
def _insert(
    sources: Any,
    destinations: Any,
    when: Any,
    first_event: int,
    at: int,
    where: Any,
    neighbours: Any,
    times: Any,
    events: Any,
    end: Any,
    last: Any,
    rooms: Any,
    tops: Any,
    free: Any,
    expired: int,
    owned: Any,
) -> int:
    """Insert from half-event `at` on; stop at the first for which there is no room.

    Returns where it stopped, or -1 - at where an event is late.
    """
    directory, starts = where.directory, where.starts
    while at < 2 * len(when):
        e = at >> 1
        node, other = sources[e], destinations[e]
        if at & 1:
            node, other = other, node
        if len(owned) and not owned[node]:
            at += 1
            continue
        if when[e] < last[node] or when[e] < expired:
            return -1 - at
        position = end[node]
        number, offset, size_class = _block_of(position, where.first, where.block)
        entry = number - where.first_block[node]
        if offset == 0:
            size = where.first << size_class
            address = free[size_class]
            if address < 0 and tops[0] + size > len(times):
                return at
            if entry == rooms[node]:
                room = max(2 * rooms[node], 1)
                if tops[1] + room > len(directory):
                    return at
                for k in range(entry):
                    directory[tops[1] + k] = directory[starts[node] + k]
                starts[node], rooms[node] = tops[1], room
                tops[1] += room
            if address < 0:
                address = tops[0]
                tops[0] += size
            else:
                free[size_class] = events[address]
            directory[starts[node] + entry] = address
        slot = directory[starts[node] + entry] + offset
        neighbours[slot], times[slot], events[slot] = other, when[e], first_event + e
        end[node] = position + 1
        last[node] = when[e]
        at += 1
    return at


@compiled
def _expire(
    before: int, where: Any, times: Any, events: Any, base: Any, end: Any, free: Any
) -> None:
    directory, starts, first_block = where.directory, where.starts, where.first_block
    for node in range(len(base)):
        low, high = base[node], end[node]
        if low == high:
            continue
        low = _lower_bound(node, low, high, before, NO_LIMIT, where, times, events)
        if low == base[node]:
            continue
        old = first_block[node]
        have = _block_of(end[node] - 1, where.first, where.block)[0] + 1
        keep = have if low == end[node] else _block_of(low, where.first, where.block)[0]
        for number in range(old, keep):
            address = directory[starts[node] + number - old]
            size_class = min(number, len(free) - 1)
            # A freed block holds the address of the one that was freed before it.
            events[address] = free[size_class]
            free[size_class] = address
        if low == end[node]:
            base[node] = end[node] = first_block[node] = 0
            continue
        for k in range(have - keep):
            directory[starts[node] + k] = directory[starts[node] + keep - old + k]
        base[node], first_block[node] = low, keep


@compiled
def _bounds(
    nodes: Any,
    when: Any,
    window: int,
    since: int,
    limit: int,
    where: Any,
    times: Any,
    events: Any,
    base: Any,
    end: Any,
    lows: Any,
    highs: Any,
) -> None:
    for q in range(len(nodes)):
        node, low = nodes[q], base[nodes[q]]
        high = _lower_bound(node, low, end[node], when[q], limit, where, times, events)
        oldest = since
        if window > 0:
            oldest = max(oldest, when[q] - window)
        if oldest > NEVER:
            low = _lower_bound(node, low, high, oldest, NO_LIMIT, where, times, events)
        lows[q], highs[q] = low, high


@compiled
def _read(
    nodes: Any,
    positions: Any,
    where: Any,
    neighbours: Any,
    times: Any,
    events: Any,
    out_neighbours: Any,
    out_times: Any,
    out_events: Any,
) -> None:
    # Picks of one query mostly lie in one block: its place is found once.
    start = size = base = 0
    before = -1
    for i in range(len(nodes)):
        node, position = nodes[i], positions[i]
        if node != before or position < start or position >= start + size:
            number, offset, size_class = _block_of(position, where.first, where.block)
            start, size, before = position - offset, where.first << size_class, node
            base = where.directory[where.starts[node] + number - where.first_block[node]] - start
        slot = base + position
        out_neighbours[i] = neighbours[slot]
        out_times[i] = times[slot]
        out_events[i] = events[slot]
