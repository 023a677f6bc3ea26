"""Decode the bit stream of a BVGraph: instantaneous codes, references, intervals and residuals.

Bits are read from the high end of each byte. The list of a node is copied in part from that of a
node before it (blocks that are copied and passed over in turn), then come intervals of consecutive
successors, then single ones as gaps.

Source: Boldi and Vigna, "The WebGraph Framework I: Compression Techniques", WWW 2004; "The WebGraph
Framework II: Codes for the World-Wide Web", DCC 2004 (zeta codes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.data.draws import compiled

DONE, TRUNCATED, REFERENCE, SUCCESSOR, TOO_MANY = range(5)
"""How decoding ended; the others are problems of the stream."""
_LONGEST = 48
"""Bits of a code's prefix: more are no number of a graph."""


@compiled
def _bits(data: Any, state: Any, count: int) -> Any:
    """The next `count` bits as a number."""
    value = 0
    for _ in range(count):
        at = state[0]
        if at >> 3 >= len(data):
            state[1] = TRUNCATED
            return 0
        value = (value << 1) | ((data[at >> 3] >> (7 - (at & 7))) & 1)
        state[0] = at + 1
    return value


@compiled
def _unary(data: Any, state: Any) -> Any:
    """Zeros before the next one."""
    zeros = 0
    while _bits(data, state, 1) == 0:
        zeros += 1
        if state[1] != DONE or zeros > _LONGEST:
            state[1] = TRUNCATED
            return 0
    return zeros


@compiled
def _gamma(data: Any, state: Any) -> Any:
    """Elias' gamma code of a number from 0 on."""
    width = _unary(data, state)
    return ((1 << width) | _bits(data, state, width)) - 1


@compiled
def _zeta(data: Any, state: Any, k: int) -> Any:
    """The zeta code of a number from 0 on: a minimal binary code within [2^hk, 2^(h+1)k)."""
    h = _unary(data, state)
    left = 1 << (h * k)
    value = _bits(data, state, h * k + k - 1)
    if value < left:
        return value + left - 1
    return ((value << 1) | _bits(data, state, 1)) - 1


@compiled
def _signed(value: int) -> int:
    """0, -1, 1, -2, 2 ... for 0, 1, 2, 3, 4 ..."""
    return value >> 1 if value & 1 == 0 else -((value + 1) >> 1)


@compiled
def decode(
    data: Any,
    window: int,
    min_interval: int,
    k: int,
    indptr: Any,
    successors: Any,
    state: Any,
) -> Any:
    """Decode all lists; return how it ended.

    Args:
        data: the stream, uint8.
        window: how far back lists refer.
        min_interval: shortest interval; 0 is none.
        k: of the zeta codes.
        indptr: int64 [nodes + 1], filled.
        successors: int32 [arcs], filled, rising within each list.
        state: int64 [3]: the next bit, DONE or a problem, and the node that is decoded.
    """
    nodes, end = len(indptr) - 1, 0
    blocks = np.empty(64, np.int64)
    for node in range(nodes):
        state[2] = node
        indptr[node] = end
        degree = _gamma(data, state)
        if state[1] != DONE:
            return state[1]
        if end + degree > len(successors):
            return TOO_MANY
        if degree == 0:
            continue
        start, left = end, degree
        back = _unary(data, state) if window > 0 else 0
        if back > min(window, node):
            return REFERENCE
        if back > 0:
            first, stop = indptr[node - back], indptr[node - back + 1]
            count = _gamma(data, state)
            if count > 2 * (stop - first) + 2:
                return REFERENCE
            if count > len(blocks):
                blocks = np.empty(2 * count, np.int64)
            for i in range(count):
                blocks[i] = _gamma(data, state) + (1 if i > 0 else 0)
            at = first
            for i in range(count + 1):
                # Blocks are copied and passed over in turn; an even number leaves the rest copied.
                length = blocks[i] if i < count else (stop - at if count % 2 == 0 else 0)
                if at + length > stop:
                    return REFERENCE
                if i % 2 == 0:
                    if length > left:
                        return TOO_MANY
                    for place in range(at, at + length):
                        successors[end] = successors[place]
                        end += 1
                    left -= length
                at += length
        if left > 0 and min_interval > 0:
            previous = node
            for i in range(_gamma(data, state)):
                gap = _gamma(data, state)
                low = previous + _signed(gap) if i == 0 else previous + 1 + gap
                length = _gamma(data, state) + min_interval
                if length > left:
                    return TOO_MANY
                if low < 0 or low + length > nodes:
                    return SUCCESSOR
                for value in range(low, low + length):
                    successors[end] = value
                    end += 1
                left -= length
                previous = low + length
        previous = node
        for i in range(left):
            gap = _zeta(data, state, k)
            previous = previous + _signed(gap) if i == 0 else previous + 1 + gap
            if previous < 0 or previous >= nodes:
                return SUCCESSOR if state[1] == DONE else state[1]
            successors[end] = previous
            end += 1
        if state[1] != DONE:
            return state[1]
        successors[start:end].sort()
    indptr[nodes] = end
    return DONE
