"""Edge buckets in memory: exchanged when partitions come and go, and made a graph by target.

Legend: c resident partitions in rising order; bucket (a, b) has the edges from the a-th of them to
the b-th, and buckets lie row by row. An edge is a pair of positions (source, target). Within a
bucket targets rise, as the edges of a graph do that are dealt out in the order of their targets.
Every pass below walks through the buckets in order, so that targets are met in order as well. Only
the ranks of sources are looked up at random, in a table of 4 bytes per resident vertex.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled

Edges = NDArray[np.int32]
Ints = NDArray[np.int64]


def starts_of(counts: Ints) -> Ints:
    """First edge of every bucket, and the number of edges, int64 [c * c + 1].

    Args:
        counts: edges of every bucket, int64 [c, c].
    """
    out = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=out[1:])
    return out


def exchanged(starts: Ints, stayed: Ints, held: Edges, before: Ints, read: Edges) -> Edges:
    """Return the buckets of the resident partitions: those held already, and those just read.

    Args:
        starts: first edge of every bucket of the resident partitions, int64 [c * c + 1].
        stayed: place of every resident partition among those of before, -1 if it is new, int64 [c].
        held: buckets of before, int32 [n, 2].
        before: their first edges.
        read: buckets of which one end is new, int32 [m, 2].
    """
    if not np.any(stayed >= 0):
        return read
    out = np.empty((int(starts[-1]), 2), np.int32)
    _exchange(starts, stayed, held, before, round((len(before) - 1) ** 0.5), read, out)
    return out


def by_rank(edges: Edges, starts: Ints, shift: Ints, rank: Edges) -> tuple[Ints, Edges]:
    """Return indptr int64 [n + 1] and indices int32 [E], the sources of each target, rising.

    Args:
        edges: positions of both ends, bucket by bucket, int32 [E, 2].
        starts: first edge of every bucket, int64 [c * c + 1].
        shift: per resident partition, from a position to the place among resident rows, int64 [c].
        rank: number of the vertex of every resident row, int32 [n]; rises within a partition.
    """
    indptr, indices = np.zeros(len(rank) + 1, np.int64), np.empty(len(edges), np.int32)
    _fill_rows(edges, starts, shift, rank, indptr, indices)
    _sort_rows(indptr, indices)
    return indptr, indices


@compiled
def _exchange(
    starts: Any, stayed: Any, held: Any, before: Any, width: int, read: Any, out: Any
) -> None:
    taken = 0
    for a in range(len(stayed)):
        for b in range(len(stayed)):
            first, stop = starts[a * len(stayed) + b], starts[a * len(stayed) + b + 1]
            if stayed[a] >= 0 and stayed[b] >= 0:
                lag = first - before[stayed[a] * width + stayed[b]]
                for edge in range(first, stop):
                    out[edge, 0] = held[edge - lag, 0]
                    out[edge, 1] = held[edge - lag, 1]
            else:
                lag = first - taken
                taken += stop - first
                for edge in range(first, stop):
                    out[edge, 0] = read[edge - lag, 0]
                    out[edge, 1] = read[edge - lag, 1]


@compiled
def _fill_rows(edges: Any, starts: Any, shift: Any, rank: Any, indptr: Any, indices: Any) -> None:
    """Count and place the edges: a row is one rising run per source partition."""
    many, rows = len(shift), len(rank)
    for b in range(many):
        for a in range(many):
            for edge in range(starts[a * many + b], starts[a * many + b + 1]):
                indptr[rank[edges[edge, 1] + shift[b]] + 1] += 1
    for row in range(rows):
        indptr[row + 1] += indptr[row]
    place = indptr[:rows].copy()
    for b in range(many):
        for a in range(many):
            for edge in range(starts[a * many + b], starts[a * many + b + 1]):
                row = rank[edges[edge, 1] + shift[b]]
                indices[place[row]] = rank[edges[edge, 0] + shift[a]]
                place[row] += 1


@compiled
def _sort_rows(indptr: Any, indices: Any) -> None:
    """Sort every row that does not rise yet, in place.

    Shell's sort: few moves where a row consists of rising runs, and no memory.
    """
    for row in range(len(indptr) - 1):
        first, stop = indptr[row], indptr[row + 1]
        at = first + 1
        while at < stop and indices[at - 1] <= indices[at]:
            at += 1
        if at >= stop:
            continue
        gap = 1
        while stop - first > 16 and 3 * gap + 1 < stop - first:
            gap = 3 * gap + 1
        while gap > 0:
            for at in range(first + gap, stop):
                value, back = indices[at], at
                while back >= first + gap and indices[back - gap] > value:
                    indices[back] = indices[back - gap]
                    back -= gap
                indices[back] = value
            gap //= 3
