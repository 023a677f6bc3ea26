"""Layout of the dynamic graph store: records, arithmetic of blocks, searches.

Every vertex has a list of its edges, oldest first; the edge at position p of it lies in block b,
whose capacity is `first * 2**min(b, m)`, m = log2(block / first): blocks double until they have
`block` slots. So position -> (block, offset) is arithmetic and no list is walked. A directory per
vertex holds the addresses of its blocks.

A slot is one record, so a new edge touches one or two cache lines and so does a drawn one. What a
query needs of a vertex is one record as well.

Source: temporal reference section 3.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from gnnbench.data.draws import compiled
from gnnbench.data.temporal_picks import NEVER, NO_LIMIT, take

Ids = NDArray[np.int64]

SLOT = np.dtype([("time", np.int64), ("event", np.int64), ("neighbour", np.int32)])
"""An edge; packed."""
HEAD = np.dtype(
    [
        ("base", np.int64),
        ("end", np.int64),
        ("entries", np.int64),
        ("first_block", np.int32),
        ("room", np.int32),
    ]
)
"""A vertex: positions of its living edges, base..end-1; where its directory begins, the number of
the block that its first entry holds, and the entries that there is room for."""


_NEAR = 4
"""The newest edge, the one before it and the third before it are tried first."""
_AHEAD = 16
"""Queries between asking for a record and reading it."""
_TOGETHER = 16
"""Queries that are searched for side by side."""


class Blocks(NamedTuple):
    """What turns (vertex, position) into a slot, as compiled loops take it.

    The capacities of the first block and of the largest are 2**first_bits and 2**block_bits.
    """

    first_bits: int
    block_bits: int
    heads: NDArray[Any]
    directory: Ids
    slots: NDArray[Any]


@intrinsic
def _leading_zeros(typing_context: Any, value: Any) -> Any:
    """Count the zero bits before the first one of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], cgutils.false_bit)

    return types.int64(types.int64), generate


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flag, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # For reading or writing, in all caches, of data.
        hints = [ir.Constant(flag, value) for value in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(arguments[0], pointer), *hints])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@njit(inline="always")
def fetch(array: Any, index: Any) -> None:
    """Ask for an element that is needed soon; memory then works while the loop does."""
    _prefetch(np.uint64(array.ctypes.data) + np.uint64(index * array.itemsize))


@njit(inline="always")
def block_at(position: Any, first_bits: Any, block_bits: Any) -> Any:
    """Number of the block of a position, the first position of the block, and its size class.

    The capacity of a block is 2**(first_bits + class).
    """
    doubling = (1 << block_bits) - (1 << first_bits)
    if position < doubling:
        number = 63 - _leading_zeros((position >> first_bits) + 1)
        return number, ((1 << number) - 1) << first_bits, number
    levels = block_bits - first_bits
    more = (position - doubling) >> block_bits
    return levels + more, doubling + (more << block_bits), levels


@njit(inline="always")
def extent(number: Any, first_bits: Any, block_bits: Any) -> Any:
    """First position and capacity of a block."""
    level = min(number, block_bits - first_bits)
    start = (((1 << level) - 1) << first_bits) + ((number - level) << block_bits)
    return start, 1 << (first_bits + level)


@njit(inline="always")
def lower_bound(
    entry: Any,
    low: Any,
    high: Any,
    time: Any,
    limit: Any,
    first_bits: Any,
    block_bits: Any,
    directory: Any,
    slots: Any,
) -> Any:
    """The first position in low..high whose edge is not before `time` and before event `limit`.

    Times and ids rise together, so both conditions are one. Many queries are about the recent past,
    so a few of the newest edges are tried first, which lie next to one another. Otherwise the block
    is found by the first edges of blocks, then the edge within it.

    Args:
        entry: of the directory, less the number of the vertex's first block.

    Returns:
        The position, and the address of the slot before it; -1 where that is in another block.
    """
    if low >= high:
        return low, -1
    number, start, _ = block_at(high - 1, first_bits, block_bits)
    shift = directory[entry + number] - start
    floor = max(low, start)
    probe, top, step = high - 1, high, 1
    found = False
    while step <= _NEAR:
        edge = slots[shift + probe]
        if edge.time < time and edge.event < limit:
            found = True
            break
        top = probe
        probe = max(probe - step, floor)
        step *= 2
    if not found and top > floor:
        edge = slots[shift + floor]
        probe, found = floor, edge.time < time and edge.event < limit
    if not found:
        if floor == low:
            return low, -1
        newest = number - 1
        number = block_at(low, first_bits, block_bits)[0]
        while number < newest:
            middle = (number + newest + 1) >> 1
            edge = slots[directory[entry + middle]]
            if edge.time < time and edge.event < limit:
                number = middle
            else:
                newest = middle - 1
        start, size = extent(number, first_bits, block_bits)
        shift = directory[entry + number] - start
        probe, top = max(low, start) - 1, min(high, start + size)
    low = probe + 1
    while low < top:
        middle = (low + top) >> 1
        edge = slots[shift + middle]
        if edge.time < time and edge.event < limit:
            low = middle + 1
        else:
            top = middle
    return low, shift + low - 1 if low > start else -1


@compiled
def count_visible(
    nodes: Any,
    when: Any,
    fanout: int,
    window: int,
    since: int,
    limit: int,
    where: Any,
    seen: Any,
    indptr: Any,
) -> None:
    """What each query may see, and where the edges that it draws begin.

    Args:
        seen: written, int64 [Q, 4]: positions from..to-1, the address of the last slot or -1, and
            the vertex's directory entry less the number of its first block.
    """
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    count = len(nodes)
    indptr[0] = 0
    for q in range(count):
        if q + 2 * _AHEAD < count:
            fetch(heads, nodes[q + 2 * _AHEAD])
        if q + _AHEAD < count:
            # By now the head is there; where its directory leads is asked for later.
            head = heads[nodes[q + _AHEAD]]
            newest = block_at(max(head.end - 1, 0), first_bits, block_bits)[0]
            seen[q + _AHEAD, 3] = head.entries - head.first_block
            seen[q + _AHEAD, 2] = newest
            fetch(directory, seen[q + _AHEAD, 3] + newest)
        if q + _AHEAD // 2 < count and q >= _AHEAD // 2:
            later = q + _AHEAD // 2
            head = heads[nodes[later]]
            if head.end > head.base:
                start = extent(seen[later, 2], first_bits, block_bits)[0]
                address = directory[seen[later, 3] + seen[later, 2]]
                fetch(slots, address + head.end - 1 - start)
        head = heads[nodes[q]]
        low, entry = head.base, head.entries - head.first_block
        high, tail = lower_bound(
            entry, low, head.end, when[q], limit, first_bits, block_bits, directory, slots
        )
        oldest = since
        if window > 0:
            oldest = max(oldest, when[q] - window)
        if oldest > NEVER:
            low, _ = lower_bound(
                entry, low, high, oldest, NO_LIMIT, first_bits, block_bits, directory, slots
            )
        seen[q, 0], seen[q, 1], seen[q, 2], seen[q, 3] = low, high, tail, entry
        indptr[q + 1] = indptr[q] + min(high - low, fanout)


@compiled
def count_side_by_side(
    nodes: Any, when: Any, fanout: int, limit: int, where: Any, seen: Any, indptr: Any
) -> None:
    """As `count_visible`, without a window, for queries about any time in the past.

    The searches of `_TOGETHER` queries take their steps in turns: what all of them read next is
    asked for before the first of them reads it, so that waits for memory overlap.

    Args:
        seen: as `count_visible` writes it, but for the address of the last slot, which is -1.
    """
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    count = len(nodes)
    low, high = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.int64)
    begin, end = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.int64)
    entry, address = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.int64)
    indptr[0] = 0
    for k in range(min(_TOGETHER, count)):
        fetch(heads, nodes[k])
    for start in range(0, count, _TOGETHER):
        size = min(_TOGETHER, count - start)
        for k in range(min(_TOGETHER, count - start - size)):
            fetch(heads, nodes[start + size + k])
        # The block: the last one whose first edge may be seen, else the oldest.
        searching = False
        for k in range(size):
            head = heads[nodes[start + k]]
            begin[k], end[k] = head.base, head.end
            entry[k] = head.entries - head.first_block
            low[k], high[k] = 0, -1
            if head.end > head.base:
                low[k] = block_at(head.base, first_bits, block_bits)[0]
                high[k] = block_at(head.end - 1, first_bits, block_bits)[0]
                fetch(directory, entry[k] + ((low[k] + high[k] + 1) >> 1))
                searching = searching or low[k] < high[k]
        while searching:
            for k in range(size):
                if low[k] < high[k]:
                    address[k] = directory[entry[k] + ((low[k] + high[k] + 1) >> 1)]
                    fetch(slots, address[k])
            searching = False
            for k in range(size):
                if low[k] < high[k]:
                    middle = (low[k] + high[k] + 1) >> 1
                    edge = slots[address[k]]
                    if edge.time < when[start + k] and edge.event < limit:
                        low[k] = middle
                    else:
                        high[k] = middle - 1
                    if low[k] < high[k]:
                        searching = True
                        fetch(directory, entry[k] + ((low[k] + high[k] + 1) >> 1))
        # The edge within it.
        searching = False
        for k in range(size):
            if high[k] < 0:
                low[k], high[k] = begin[k], begin[k]
                continue
            first, room = extent(low[k], first_bits, block_bits)
            address[k] = directory[entry[k] + low[k]] - first
            low[k], high[k] = max(begin[k], first), min(end[k], first + room)
            fetch(slots, address[k] + ((low[k] + high[k]) >> 1))
            searching = True
        while searching:
            searching = False
            for k in range(size):
                if low[k] < high[k]:
                    middle = (low[k] + high[k]) >> 1
                    edge = slots[address[k] + middle]
                    if edge.time < when[start + k] and edge.event < limit:
                        low[k] = middle + 1
                    else:
                        high[k] = middle
                    if low[k] < high[k]:
                        searching = True
                        fetch(slots, address[k] + ((low[k] + high[k]) >> 1))
        for k in range(size):
            q = start + k
            seen[q, 0], seen[q, 1], seen[q, 2], seen[q, 3] = begin[k], low[k], -1, entry[k]
            indptr[q + 1] = indptr[q] + min(low[k] - begin[k], fanout)


@compiled
def draw_visible(
    nodes: Any,
    when: Any,
    seen: Any,
    indptr: Any,
    key: Any,
    uniform: bool,
    where: Any,
    neighbours: Any,
    times: Any,
    events: Any,
    deltas: Any,
) -> None:
    """Draw the edges of each query and read them."""
    directory, slots = where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    # First all addresses, then all slots: reads that do not wait for one another overlap.
    addresses = neighbours
    for q in range(len(nodes)):
        at, low, high, entry = indptr[q], seen[q, 0], seen[q, 1], seen[q, 3]
        picks = indptr[q + 1] - at
        if picks == 0:
            continue
        for slot in range(at, at + picks):
            deltas[slot] = when[q]
        if uniform and picks < high - low:
            take(nodes[q], when[q], low, high, picks, key, uniform, addresses, at)
            for slot in range(at, at + picks):
                number, start, _ = block_at(addresses[slot], first_bits, block_bits)
                addresses[slot] += directory[entry + number] - start
            continue
        # The newest edges are neighbours in memory, block by block.
        address, position, stop = seen[q, 2], high - 1, at + picks
        while at < stop:
            number, start, _ = block_at(position, first_bits, block_bits)
            if address < 0:
                address = directory[entry + number] + position - start
            run = min(stop - at, position - start + 1)
            for k in range(run):
                addresses[at + k] = address - k
            at, position, address = at + run, position - run, -1
    count = len(addresses)
    for slot in range(count):
        if slot + 2 * _AHEAD < count:
            fetch(slots, addresses[slot + 2 * _AHEAD])
        edge = slots[addresses[slot]]
        neighbours[slot] = edge.neighbour
        times[slot] = edge.time
        events[slot] = edge.event
        deltas[slot] -= edge.time


@compiled
def expire_before(before: int, where: Any, free: Any) -> None:
    """Forget edges older than `before`; give their whole blocks to the lists of free blocks."""
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    for node in range(len(heads)):
        head = heads[node]
        base, end, old = head.base, head.end, head.first_block
        if base == end:
            continue
        entry = head.entries - old
        low, _ = lower_bound(
            entry, base, end, before, NO_LIMIT, first_bits, block_bits, directory, slots
        )
        if low == base:
            continue
        have = block_at(end - 1, first_bits, block_bits)[0] + 1
        keep = have if low == end else block_at(low, first_bits, block_bits)[0]
        for number in range(old, keep):
            address = directory[head.entries + number - old]
            size_class = min(number, len(free) - 1)
            # A freed block holds the address of the one that was freed before it.
            slots[address].event = free[size_class]
            free[size_class] = address
        if low == end:
            head.base, head.end, head.first_block = 0, 0, 0
            continue
        for k in range(have - keep):
            directory[head.entries + k] = directory[head.entries + keep - old + k]
        head.base, head.first_block = low, keep
