"""The dynamic graph store: per-vertex lists of edges in order of time, in blocks that double.

    bytes = 20 per slot + 36 per vertex + 8 per directory entry

A slot is time int64, event int64, neighbour int32. A vertex has a record of 32 bytes and a number
of 4 bytes that insertions use. The directories double when they are full. The pools of slots and of
directory entries grow by a quarter; blocks that have expired are given out again. Bytes depend on
what was inserted and expired, not on how the insertions were cut into batches between two
expiries.

Deviation from GNNFlow's store: it sizes a new block by the group that is inserted and walks linked
lists; here an insertion in pieces gives the same blocks as one at once. Times are int64, not
float32.

Source: temporal reference sections 3.1 and 3.2, invariants S1-S9; layout: `temporal_blocks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.pool import Pool
from gnnbench.data.temporal_blocks import (
    HEAD,
    SLOT,
    Blocks,
    block_at,
    count_side_by_side,
    count_visible,
    draw_visible,
    expire_before,
)
from gnnbench.data.temporal_insert import (
    CURSOR,
    clear,
    first_late,
    number_vertices,
    reserve,
    rises,
    write,
)
from gnnbench.data.temporal_picks import NEVER, NO_LIMIT
from gnnbench.errors import DataError

Ids = NDArray[np.int64]
Drawn = tuple[Ids, Ids, Ids, Ids, Ids]
"""`indptr` [Q + 1] of the queries; neighbours, times, events and deltas of the drawn edges."""

FIRST, BLOCK = 4, 256
"""Capacities of the first block of a vertex and of its largest ones."""
SLOT_BYTES, VERTEX_BYTES, ENTRY_BYTES = SLOT.itemsize, HEAD.itemsize + 4, 8
_ROOM = 1024  # slots and directory entries to begin with
_NONE = -1
_EVERYONE = np.empty(0, np.bool_)


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
        self._slots, self._entries = Pool(_ROOM, SLOT), Pool(_ROOM, np.int64)
        self.heads = np.zeros(num_nodes, HEAD)
        self._places = np.zeros(num_nodes, np.int32)
        # Slots and directory entries given out; then the newest freed block of each size.
        self.tops = np.zeros(2, np.int64)
        self.free = np.full((block // first).bit_length(), _NONE, np.int64)
        self.expired = NEVER
        """No edge before this time is left."""
        self._newest = NEVER  # no edge is newer

    @property
    def num_edges(self) -> int:
        """Stored directed edges: two per event."""
        return int(self.degrees().sum())

    @property
    def num_bytes(self) -> int:
        """By the formula of the module."""
        slots, entries = len(self._slots.array), len(self._entries.array)
        return SLOT_BYTES * slots + VERTEX_BYTES * self.num_nodes + ENTRY_BYTES * entries

    def degrees(self) -> Ids:
        """Living edges of each vertex."""
        found: Ids = self.heads["end"] - self.heads["base"]
        return found

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
                expired. Then no event of the batch is inserted.
        """
        if not len(times):
            return
        ends = np.ascontiguousarray(sources), np.ascontiguousarray(destinations)
        when = np.ascontiguousarray(times)
        most = min(2 * len(when), self.num_nodes)
        touched, counts = np.empty(most, np.int32), np.empty(most, np.int32)
        found = number_vertices(*ends, self.owned, self._places, touched, counts)
        try:
            self._refuse_late(*ends, when, first_event, touched, found)
            cursors = self._reserve(touched, counts, found)
            write(*ends, when, first_event, self._places, cursors, self._layout())
        finally:
            clear(self._places, touched, found)

    def expire(self, before: int) -> None:
        """Forget all edges older than `before`; their whole blocks are given out again."""
        self.expired = max(self.expired, int(before))
        expire_before(before, self._layout(), self.free)

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
    ) -> Drawn:
        """Draw up to `fanout` edges of each query (node, time) among those that it may see.

        Those are `time - window <= t < time`: strictly earlier, never merely inserted before.

        Args:
            nodes, times: of the queries, int64 [Q].
            fanout: edges per query, at most.
            key: of the draws.
            uniform: whether each edge has the same chance; else the newest are taken.
            window: 0 is unlimited.
            since: hide edges before this time, as if they had expired.
            before_event: hide the events with this id and later ones, as if they had not been
                inserted; -1 hides none.
        """
        count, where = len(nodes), self._layout()
        seen, indptr = np.empty((count, 4), np.int64), np.empty(count + 1, np.int64)
        limit = NO_LIMIT if before_event < 0 else before_event
        if uniform and not window and since == NEVER:
            count_side_by_side(nodes, times, fanout, limit, where, seen, indptr)
        else:
            count_visible(nodes, times, fanout, window, since, limit, where, seen, indptr)
        edges = int(indptr[-1])
        found = tuple(np.empty(edges, np.int64) for _ in range(4))
        bits = np.uint64(key)
        draw_visible(nodes, times, seen, indptr, bits, uniform, where, *found)
        return indptr, found[0], found[1], found[2], found[3]

    def blocks(self, node: int) -> list[tuple[int, int]]:
        """Address and capacity of each block of a vertex, oldest first; for tests."""
        head = self.heads[node]
        first, last = int(head["first_block"]), int(head["end"]) - 1
        if last < head["base"]:
            return []
        count = block_of(last, self.first, self.block) - first + 1
        start = int(head["entries"])
        return [
            (int(self._entries.array[start + k]), self.first << min(first + k, len(self.free) - 1))
            for k in range(count)
        ]

    def _refuse_late(
        self,
        sources: NDArray[Any],
        destinations: NDArray[Any],
        when: Ids,
        first_event: int,
        touched: NDArray[np.int32],
        found: int,
    ) -> None:
        """Raise where an event is late; edge by edge only if the stream itself does not rise."""
        newest = int(when[-1])
        if when[0] < max(self._newest, self.expired) or not rises(when):
            ends = sources, destinations
            late = first_late(
                *ends, when, self._places, touched, found, self.expired, self._layout()
            )
            if late >= 0:
                raise DataError(
                    "stream",
                    f"event {first_event + late // 2} at {when[late // 2]} is older than an edge "
                    "that its ends have, or than what has expired; insert in order of time",
                )
            newest = int(when.max())
        self._newest = max(self._newest, newest)

    def _reserve(
        self, touched: NDArray[np.int32], counts: NDArray[np.int32], found: int
    ) -> NDArray[Any]:
        """Give the vertices of a batch their blocks; return where their edges go."""
        cursors, at = np.empty(found, CURSOR), np.zeros(4, np.int64)
        while not reserve(
            touched, counts, found, at, self._layout(), self.tops, self.free, cursors
        ):
            _lengthen(self._slots, int(at[2]), self.block)
            _lengthen(self._entries, int(at[3]), self.block)
        return cursors

    def _layout(self) -> Blocks:
        bits = self.first.bit_length() - 1, self.block.bit_length() - 1
        return Blocks(*bits, self.heads, self._entries.array, self._slots.array)


def block_of(position: int, first: int, block: int) -> int:
    """The block of a vertex in which a position lies."""
    return int(block_at(position, first.bit_length() - 1, block.bit_length() - 1)[0])


def _lengthen(pool: Pool, need: int, least: int) -> None:
    """Grow a pool by a quarter, and by `least`, as often as it takes."""
    length = len(pool.array)
    while length < need:
        length += length // 4 + least
    if length > len(pool.array):
        pool.lengthen(length)
