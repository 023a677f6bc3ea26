"""Insertion of a batch of events into the block store: count, reserve, write.

1. Number the vertices of the batch and count their new edges; in a batch that touches a good part
   of all vertices by their ids, so that the next pass walks memory forwards.
2. Reserve: per vertex, blocks and directory entries for all of its new edges, by arithmetic.
3. Write: in the order of the stream, each edge to the next slot of its vertex.

An order of time per vertex follows from that of the stream, without sorting. Every pass is linear
in the batch. Which address a block gets depends on the batches; how many blocks of each capacity
there are, and how long each directory is, does not.

Source: temporal reference section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.data.draws import compiled
from gnnbench.data.temporal_blocks import block_at, fetch
from gnnbench.data.temporal_picks import NEVER

CURSOR = np.dtype([("slot", np.int64), ("left", np.int32), ("number", np.int32)])
"""The next slot of a vertex, the slots that are left in its block, and the number of the block."""
_AHEAD = 8
"""Events between asking for a record and using it."""
_DENSE = 8
"""A batch of more half-events than V / 8 is counted by walking over all vertices."""


@compiled
def rises(when: Any) -> bool:
    """Whether times never fall."""
    falls = 0
    for i in range(1, len(when)):
        falls += when[i] < when[i - 1]
    return falls == 0


@compiled
def number_vertices(
    sources: Any, destinations: Any, owned: Any, places: Any, touched: Any, counts: Any
) -> int:
    """Find the vertices of a batch and the edges that each gets; return how many vertices.

    Args:
        owned: bool [V], or empty: only their edges are stored here.
        places: int32 [V], zeros; number of each vertex of the batch afterwards, from 1 on.
        touched, counts: written, int32 [vertices of the batch].
    """
    found = 0
    if _DENSE * 2 * len(sources) < len(places):
        for e in range(len(sources)):
            for turn in range(2):
                node = destinations[e] if turn else sources[e]
                if len(owned) and not owned[node]:
                    continue
                at = places[node]
                if at == 0:
                    touched[found], counts[found] = node, 1
                    found += 1
                    places[node] = found
                else:
                    counts[at - 1] += 1
        return found
    for e in range(len(sources)):
        places[sources[e]] += 1
        places[destinations[e]] += 1
    for node in range(len(places)):
        count = places[node]
        if count == 0:
            continue
        if len(owned) and not owned[node]:
            places[node] = 0
            continue
        touched[found], counts[found] = node, count
        found += 1
        places[node] = found
    return found


@compiled
def clear(places: Any, touched: Any, found: int) -> None:
    """Forget the numbers of a batch's vertices."""
    for i in range(found):
        places[touched[i]] = 0


@compiled
def first_late(
    sources: Any,
    destinations: Any,
    when: Any,
    places: Any,
    touched: Any,
    found: int,
    expired: int,
    where: Any,
) -> int:
    """The first half-event that is older than an edge of its vertex or than `expired`, or -1."""
    newest = np.empty(found, np.int64)
    for i in range(found):
        head = where.heads[touched[i]]
        newest[i] = NEVER
        if head.end > head.base:
            position = head.end - 1
            number, start, _ = block_at(position, where.first_bits, where.block_bits)
            address = where.directory[head.entries + number - head.first_block]
            newest[i] = where.slots[address + position - start].time
    for e in range(len(when)):
        for turn in range(2):
            place = places[destinations[e] if turn else sources[e]]
            if place == 0:
                continue
            if when[e] < expired or when[e] < newest[place - 1]:
                return 2 * e + turn
            newest[place - 1] = when[e]
    return -1


@compiled
def reserve(
    touched: Any,
    counts: Any,
    found: int,
    at: Any,
    where: Any,
    tops: Any,
    free: Any,
    cursors: Any,
) -> bool:
    """Give each vertex of a batch the blocks and directory entries that its new edges need.

    Args:
        at: int64 [4]: the vertex to go on with and the blocks that it was given already; where this
            returns False, also the slots and the directory entries that are needed to go on.
        tops: slots and directory entries that were ever given out.
        free: newest freed block of each size class, or -1.
        cursors: written: where each vertex's first new edge goes.
    """
    first_bits, block_bits = where.first_bits, where.block_bits
    heads, directory, slots = where.heads, where.directory, where.slots
    levels = block_bits - first_bits
    for i in range(at[0], found):
        if i + _AHEAD < found:
            fetch(directory, heads[touched[i + _AHEAD]].entries)
        head = heads[touched[i]]
        end, first_block = head.end, head.first_block
        have = first_block
        if end > head.base:
            have = block_at(end - 1, first_bits, block_bits)[0] + 1
        last = block_at(end + counts[i] - 1, first_bits, block_bits)[0] + 1
        need = last - first_block
        if need > head.room:
            # As many entries are spent as if the directory had doubled edge by edge.
            room: Any = np.int64(head.room)
            spent = 0
            while room < need:
                room = max(2 * room, 1)
                spent += room
            if tops[1] + spent > len(directory):
                at[0], at[2], at[3] = i, tops[0], tops[1] + spent
                return False
            start = tops[1] + spent - room
            for k in range(have - first_block):
                directory[start + k] = directory[head.entries + k]
            head.entries, head.room = start, room
            tops[1] += spent
        entry = head.entries - first_block
        for number in range(have + at[1], last):
            size_class = min(number, levels)
            address = free[size_class]
            if address < 0:
                size = 1 << (first_bits + size_class)
                if tops[0] + size > len(slots):
                    at[0], at[1], at[2], at[3] = i, number - have, tops[0] + size, tops[1]
                    return False
                address = tops[0]
                tops[0] += size
            else:
                free[size_class] = slots[address].event
            directory[entry + number] = address
        at[1] = 0
        number, start, size_class = block_at(end, first_bits, block_bits)
        cursor = cursors[i]
        cursor.slot = directory[entry + number] + end - start
        cursor.left = (1 << (first_bits + size_class)) - (end - start)
        cursor.number = number
        head.end = end + counts[i]
    return True


@compiled
def write(
    sources: Any,
    destinations: Any,
    when: Any,
    first_event: int,
    places: Any,
    cursors: Any,
    where: Any,
) -> None:
    """Write each edge of a batch to the next slot of its vertex."""
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, levels = where.first_bits, where.block_bits - where.first_bits
    count = len(when)
    for e in range(count):
        # Later on, the place is read, then the cursor, then the slot is written.
        if e + 3 * _AHEAD < count:
            fetch(places, sources[e + 3 * _AHEAD])
            fetch(places, destinations[e + 3 * _AHEAD])
            later = e + 2 * _AHEAD
            fetch(cursors, places[sources[later]] - 1)
            fetch(cursors, places[destinations[later]] - 1)
            later = e + _AHEAD
            fetch(slots, cursors[max(places[sources[later]] - 1, 0)].slot)
            fetch(slots, cursors[max(places[destinations[later]] - 1, 0)].slot)
        for turn in range(2):
            node, other = sources[e], destinations[e]
            if turn:
                node, other = other, node
            place = places[node]
            if place == 0:
                continue
            cursor = cursors[place - 1]
            if cursor.left == 0:
                head = heads[node]
                number = cursor.number + 1
                cursor.number = number
                cursor.slot = directory[head.entries + number - head.first_block]
                cursor.left = 1 << (first_bits + min(number, levels))
            edge = slots[cursor.slot]
            edge.time = when[e]
            edge.event = first_event + e
            edge.neighbour = other
            cursor.slot += 1
            cursor.left -= 1
