"""Count how far apart reads of the same row lie when a sparse product runs over a graph.

Rows are taken in order, and each reads the rows of its in-neighbours. Between two reads of a row
there is a reuse *time* (reads), which one pass counts exactly. The reuse *distance* (different
rows) is the mean number of different rows in windows of that many reads, which follows from the
same counts: higher-order theory of locality, Xiang, Ding, Luo and Bao, ASPLOS 2013, equation 3 with
first and last reads. On large graphs, rows are sampled by a hash of their id (SHARDS, Waldspurger
et al., FAST 2015): times of sampled rows stay exact, distinct rows are scaled by the rate.

Deviation: every window has the mean of all windows, so that graphs whose locality changes along the
order are blurred; below 0.05 in a hit rate on the generated kinds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnnbench.reuse import BINS, Floats, Reuse

PER_OCTAVE = 2
_TIMES = 44 * PER_OCTAVE
MOST_READS = 1 << 23
"""Reads that are followed; of more, a power of two of the rows is sampled."""
DIGITS = 5
_KEPT = 16


def reuse_shares(
    indptr: NDArray[np.int64],
    indices: NDArray[np.integer[Any]],
    assignment: NDArray[np.integer[Any]] | None = None,
    num_parts: int = 1,
    *,
    order: NDArray[np.int64] | None = None,
    num_columns: int | None = None,
    most_reads: int = MOST_READS,
) -> Floats:
    """Return shares [P, BINS] of the reads of each part by reuse distance, see `Reuse`.

    Args:
        indptr, indices: the pattern; row r reads the columns indices[indptr[r]:indptr[r + 1]].
        assignment: the part of each row; a part reads for its own rows, in rising order.
        num_parts: how many there are.
        order: in which the rows of a single part are taken; rising by default.
        num_columns: of the pattern; as many as rows by default.
        most_reads: above so many, columns are sampled.

    Cost: a pass over the entries, some 20 ns each; 30 bytes per vertex.
    """
    rows = len(indptr) - 1
    columns = rows if num_columns is None else num_columns
    parts = np.zeros(rows, np.int32) if assignment is None else assignment
    if order is None:
        order = np.argsort(parts, kind="stable")
    ends = np.cumsum(np.bincount(parts, minlength=num_parts))
    starts = np.concatenate([[0], ends]).astype(np.int64)
    skip = max(0, math.ceil(math.log2(max(len(indices), 1) / most_reads)))
    counted = _count(
        np.asarray(indptr), np.asarray(indices), order, starts, columns, (1 << skip) - 1, _TIMES
    )
    rate = float(1 << skip)
    counts, sums, firsts, lasts, reads = counted
    parts_of = zip(counts, sums, firsts, lasts, reads.tolist(), strict=True)
    found = [_shares(*tables, rate=rate) for tables in parts_of]
    return np.stack(found)


def counted_reuse(
    indptr: NDArray[np.int64],
    indices: NDArray[np.integer[Any]],
    assignment: NDArray[np.integer[Any]] | None = None,
    num_parts: int = 1,
    *,
    order: NDArray[np.int64] | None = None,
) -> Reuse:
    """The reuse of a pattern's columns in one product over all of it, or over each part [P, BINS].

    The last few are kept: a suite plans many runs on the same arrays, which must not be written to.
    """
    arrays = (indptr, indices, assignment, order)
    key = (*map(id, arrays), num_parts)
    if key not in _COUNTED:
        shares = reuse_shares(indptr, indices, assignment, num_parts, order=order).round(DIGITS)
        _COUNTED[key] = (arrays, Reuse(shares if num_parts > 1 else shares[0]))
        while len(_COUNTED) > _KEPT:
            _COUNTED.popitem(last=False)
    return _COUNTED[key][1]


# The arrays are kept with their reuse, so that no other array can get their ids.
_COUNTED: OrderedDict[tuple[int, ...], tuple[Any, Reuse]] = OrderedDict()


def _shares(
    counts: Floats, sums: Floats, firsts: Floats, lasts: Floats, reads: float, *, rate: float
) -> Floats:
    """Shares by distance from the counts of a part.

    `counts` [T] are reuses by time and `sums` their times; `firsts` and `lasts` [2, T] the same of
    the first read of a row, and of the last one counted from the end.
    """
    out = np.zeros(BINS)
    distinct, followed = firsts[0].sum(), counts.sum() + firsts[0].sum()
    if followed == 0:
        out[0] = 1.0
        return out
    edges = 2.0 ** (np.arange(_TIMES + 1) / PER_OCTAVE)

    def beyond(table: Floats, weighted: Floats) -> Floats:
        """Sum of (time - edge) of the times above each edge."""
        later, longer = (np.append(np.cumsum(t[::-1])[::-1], 0.0) for t in (table, weighted))
        return np.asarray(longer - edges * later)

    missing = beyond(counts, sums) + beyond(*firsts) + beyond(*lasts)
    windows = np.maximum(reads - edges + 1.0, 1.0)
    footprint = np.where(edges < reads, distinct - missing / windows, distinct)
    footprint = np.maximum.accumulate(np.clip(footprint, 0.0, distinct)) * rate
    middles = np.sqrt(np.maximum(footprint[:-1], 1.0) * np.maximum(footprint[1:], 1.0))
    np.add.at(out, _bins(middles), counts)
    out[_bins(np.array([distinct * rate]))] += distinct
    return np.asarray(out / followed)


def _bins(distances: Floats) -> NDArray[np.intp]:
    found = np.floor(np.log2(np.maximum(distances, 1.0))) - 1
    place: NDArray[np.intp] = np.clip(found, 0, BINS - 1).astype(np.intp)
    return place


@numba.njit(cache=True)
def _count(indptr, indices, order, starts, columns, skip, times):  # type: ignore[no-untyped-def]
    """Count reuse times, first and last reads of each part, in bins of half an octave."""
    parts = len(starts) - 1
    counts, sums = np.zeros((parts, times)), np.zeros((parts, times))
    firsts, lasts = np.zeros((parts, 2, times)), np.zeros((parts, 2, times))
    reads = np.zeros(parts)
    last = np.zeros(columns, np.int64)
    seen_by = np.full(columns, -1, np.int32)
    found = np.empty(columns, np.int64)
    for part in range(parts):
        now, distinct = 0, 0
        for position in range(starts[part], starts[part + 1]):
            row = order[position]
            for edge in range(indptr[row], indptr[row + 1]):
                now += 1
                column = indices[edge]
                # The product with a large odd number spreads neighbouring ids (Fibonacci hashing).
                if ((column * 0x9E3779B1) >> 15) & skip:
                    continue
                if seen_by[column] != part:
                    seen_by[column] = part
                    found[distinct] = column
                    distinct += 1
                    at = min(int(2.0 * np.log2(now)), times - 1)
                    firsts[part, 0, at] += 1
                    firsts[part, 1, at] += now
                else:
                    since = now - last[column]
                    at = min(int(2.0 * np.log2(since)), times - 1)
                    counts[part, at] += 1
                    sums[part, at] += since
                last[column] = now
        reads[part] = now
        for number in range(distinct):
            left = now + 1 - last[found[number]]
            at = min(int(2.0 * np.log2(left)), times - 1)
            lasts[part, 0, at] += 1
            lasts[part, 1, at] += left
    return counts, sums, firsts, lasts, reads
