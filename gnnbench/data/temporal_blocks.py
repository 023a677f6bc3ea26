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

    Times and ids rise together, so both conditions are one. First the block is found by the first
    edges of blocks, from the newest one back in steps that double, since most queries are about the
    recent past; then the edge within it.
    """
    if low >= high:
        return low
    oldest = block_at(low, first_bits, block_bits)[0]
    newest = block_at(high - 1, first_bits, block_bits)[0]
    probe, step, found = newest, 1, oldest
    while probe > oldest:
        edge = slots[directory[entry + probe]]
        if edge.time < time and edge.event < limit:
            found = probe
            break
        newest = probe - 1
        probe -= step
        step *= 2
    while found < newest:
        middle = (found + newest + 1) >> 1
        edge = slots[directory[entry + middle]]
        if edge.time < time and edge.event < limit:
            found = middle
        else:
            newest = middle - 1
    start, size = extent(found, first_bits, block_bits)
    shift = directory[entry + found] - start
    low, high = max(low, start), min(high, start + size)
    # A vertex whose edges are all before the query is the usual case of a stream.
    edge = slots[shift + high - 1]
    if edge.time < time and edge.event < limit:
        return high
    high -= 1
    while low < high:
        middle = (low + high) >> 1
        edge = slots[shift + middle]
        if edge.time < time and edge.event < limit:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def count_visible(
    nodes: Any,
    when: Any,
    fanout: int,
    window: int,
    since: int,
    limit: int,
    where: Any,
    lows: Any,
    highs: Any,
    indptr: Any,
) -> None:
    """Positions that each query may see, and where the edges that it draws begin."""
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    indptr[0] = 0
    for q in range(len(nodes)):
        head = heads[nodes[q]]
        low, entry = head.base, head.entries - head.first_block
        high = lower_bound(
            entry, low, head.end, when[q], limit, first_bits, block_bits, directory, slots
        )
        oldest = since
        if window > 0:
            oldest = max(oldest, when[q] - window)
        if oldest > NEVER:
            low = lower_bound(
                entry, low, high, oldest, NO_LIMIT, first_bits, block_bits, directory, slots
            )
        lows[q], highs[q] = low, high
        indptr[q + 1] = indptr[q] + min(high - low, fanout)


@compiled
def draw_visible(
    nodes: Any,
    when: Any,
    lows: Any,
    highs: Any,
    indptr: Any,
    fanout: int,
    key: Any,
    uniform: bool,
    where: Any,
    neighbours: Any,
    times: Any,
    events: Any,
    deltas: Any,
) -> None:
    """Draw the edges of each query and read them."""
    heads, directory, slots = where.heads, where.directory, where.slots
    first_bits, block_bits = where.first_bits, where.block_bits
    picked = np.empty(fanout, np.int64)
    for q in range(len(nodes)):
        node, at = nodes[q], indptr[q]
        picks = indptr[q + 1] - at
        if picks == 0:
            continue
        take(node, when[q], lows[q], highs[q], picks, key, uniform, picked, 0)
        head = heads[node]
        entry = head.entries - head.first_block
        start, stop, shift = 0, 0, 0
        for slot in range(picks):
            position = picked[slot]
            # Picks of one query mostly lie in one block: its place is found once.
            if position < start or position >= stop:
                number, start, size_class = block_at(position, first_bits, block_bits)
                stop = start + (1 << (first_bits + size_class))
                shift = directory[entry + number] - start
            edge = slots[shift + position]
            neighbours[at + slot] = edge.neighbour
            times[at + slot] = edge.time
            events[at + slot] = edge.event
            deltas[at + slot] = when[q] - edge.time


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
        low = lower_bound(
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
