"""The compiled loops of LADIES: column norms, draws with replacement, restriction to drawn columns.

Tables have an entry per vertex of the graph and are clean before and after a loop or a hop. A loop
that keeps some of its items writes every item and advances only behind kept ones: there is no
branch that the processor could guess wrong, but arrays need room for one item more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.data.draws import GOLDEN, ONE, below, compiled, mix64
from gnnbench.data.prefetch import ask_for_rows, prefetch

AHEAD = 16
"""Items between the one that is worked on and the one whose memory is asked for."""


@compiled
def settle(ids: Any, count: int, sums: Any, norms: Any) -> None:
    """Move the sums of the first `count` ids out of the table."""
    for i in range(count):
        u = ids[i]
        norms[i] = sums[u]
        sums[u] = 0


@compiled
def scan(indptr: Any, indices: Any, rows: Any, own: Any, sums: Any, found: Any, norms: Any) -> int:
    """Distinct in-neighbours of `rows` by first appearance, and their sums of the rows' `own`.

    Args:
        indptr, indices: of the graph.
        rows: vertices.
        own: positive integers by vertex.
        sums: table of int64, zeros before and after.
        found, norms: are written, with room for one vertex more than there can be.
    """
    count = 0
    for i in range(len(rows)):
        ask_for_rows(indptr, indices, rows, i, len(rows))
        v = rows[i]
        value = own[v]
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            before = sums[u]
            found[count] = u
            count += before == 0
            sums[u] = before + value
    settle(found, count, sums, norms)
    return count


@compiled
def merge(ids: Any, norms: Any, sums: Any) -> int:
    """Add up norms of equal ids, in place; `sums` is a table as of `scan`."""
    count = 0
    for i in range(len(ids)):
        u = ids[i]
        before = sums[u]
        sums[u] = before + norms[i]
        ids[count] = u
        count += before == 0
    settle(ids, count, sums, norms)
    return count


@compiled
def guide(norms: Any, ends: Any, firsts: Any) -> None:
    """Running sums of norms, and for each of equally long pieces of [0, sum) where to start.

    Args:
        norms: of the candidates, float64 [n]. All are zero where they come from a device whose
            values the host cannot read (conformance runs so); then the last one is always hit.
        ends: running sums, float64 [n], is written.
        firsts: int32 [pieces + 1], is written: no candidate before `firsts[piece]` ends behind the
            start of the piece.
    """
    total = 0.0
    for i in range(len(norms)):
        total += norms[i]
        ends[i] = total
    pieces = len(firsts) - 1
    per_unit = pieces / total if total > 0 else 0.0
    firsts[:] = 0
    for i in range(len(norms)):
        piece: Any = np.int64(ends[i] * per_unit)
        firsts[min(piece, pieces - 1) + 1] = i + 1
    for i in range(pieces):
        firsts[i + 1] = max(firsts[i], firsts[i + 1])


@compiled
def spin(key: Any, ends: Any, firsts: Any, hits: Any, start: int, stop: int) -> None:
    """Write the candidates that draws start .. stop-1 hit, each in proportion to its norm.

    A draw hits the first candidate whose running sum is above a uniform number. The search starts
    at the guide's candidate, so that it takes a step or two.
    """
    last, pieces = len(ends) - 1, len(firsts) - 1
    total = ends[last]
    per_unit = pieces / total if total > 0 else 0.0
    for draw in range(start, stop):
        bits = mix64((key ^ np.uint64(draw)) + GOLDEN)
        point = np.float64(bits >> np.uint64(11)) * 2.0**-53 * total
        at = np.int64(firsts[min(np.int64(point * per_unit), pieces - 1)])
        while at < last and ends[at] <= point:
            at += 1
        hits[draw] = at


@compiled
def masses_of(indptr: Any, rows: Any, own: Any, starts: Any, degrees: Any, masses: Any) -> int:
    """Write where each row v starts, its degree, and own(v) degree(v).

    Returns:
        the rows up to the last one that has an entry.
    """
    count = 0
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            prefetch(indptr, rows[i + AHEAD])
            prefetch(own, rows[i + AHEAD])
        v = rows[i]
        degree = indptr[v + 1] - indptr[v]
        starts[i], degrees[i] = indptr[v], degree
        masses[i] = np.float64(own[v]) * degree
        if degree > 0:
            count = i + 1
    return count


@compiled
def spin_edges(
    key: Any,
    ends: Any,
    firsts: Any,
    starts: Any,
    degrees: Any,
    hits: Any,
    start: int,
    stop: int,
) -> None:
    """Write the places of the edges that draws start .. stop-1 hit.

    A draw hits a row as `spin` hits a candidate, then one of the row's edges, all alike.
    """
    last, pieces = len(ends) - 1, len(firsts) - 1
    total = ends[last]
    per_unit = pieces / total if total > 0 else 0.0
    for draw in range(start, stop):
        bits = mix64((key ^ np.uint64(draw)) + GOLDEN)
        point = np.float64(bits >> np.uint64(11)) * 2.0**-53 * total
        at = np.int64(firsts[min(np.int64(point * per_unit), pieces - 1)])
        while at < last and ends[at] <= point:
            at += 1
        hits[draw] = starts[at] + below(bits, 0, degrees[at])


@compiled
def distinct(hits: Any, indices: Any, table: Any, sources: Any, times: Any) -> int:
    """List the distinct sources of edges by first appearance, and count how often each appears.

    Args:
        hits: places of edges.
        indices: sources of all edges.
        table: is filled in with places in `sources`; -1 before.
        sources, times: are written, with room for one more than there are hits.

    Returns:
        how many there are.
    """
    times[:] = 0
    count, last = 0, len(hits) - 1
    for draw in range(len(hits)):
        prefetch(indices, hits[min(draw + 2 * AHEAD, last)])
        prefetch(table, indices[hits[min(draw + AHEAD, last)]])
        u = indices[hits[draw]]
        place: Any = np.int64(table[u])
        new = place < 0
        if new:
            place = count
        table[u] = place
        sources[count] = u
        times[place] += 1
        count += new
    return count


@compiled
def add_up(indptr: Any, entries: Any, rows: Any, own: Any, places: Any, norms: Any) -> None:
    """Replace ids of columns by their places, and add each row's `own` to its columns' norms.

    Args:
        indptr, entries: of the rows; ids are replaced in place.
        rows: vertices.
        own: integers by vertex.
        places: table of the place of every column in `norms`.
        norms: of the columns, zeros before.
    """
    last = len(entries) - 1
    for i in range(len(rows)):
        value = own[rows[i]]
        for e in range(indptr[i], indptr[i + 1]):
            prefetch(places, entries[min(e + AHEAD, last)])
            place = places[entries[e]]
            norms[place] += value
            entries[e] = place


@compiled
def collect(hits: Any, times: Any, kept: Any) -> int:
    """Count hits by candidate, and list the candidates that were hit, in their order.

    Args:
        hits: candidates, one per draw.
        times: hits by candidate, int32 [n]; zeros before.
        kept: candidates that were hit, int32 [n + 1], is written.

    Returns:
        how many were hit.
    """
    for draw in range(len(hits)):
        times[hits[draw]] += 1
    count = 0
    for i in range(len(times)):
        kept[count] = i
        count += times[i] > 0
    return count


@compiled
def weigh(
    kept: Any,
    candidates: Any,
    norms: Any,
    times: Any,
    total: float,
    draws: int,
    least: float,
    vertices: Any,
    weights: Any,
) -> None:
    """Write ids of the kept candidates, and their weights (times hit) / (draws p).

    Args:
        kept: candidates that were hit.
        candidates, norms, times: of all candidates: ids, norms, hits.
        total: sum of the norms, so that p is norm / total.
        draws: how many.
        least: stands in for norms that are smaller.
        vertices, weights: are written.
    """
    for j in range(len(kept)):
        i = kept[j]
        vertices[j] = candidates[i]
        weights[j] = times[i] * total / (draws * max(norms[i], least))


@compiled
def mark(ids: Any, values: Any, table: Any) -> None:
    """Enter a value per id in a table."""
    for i in range(len(ids)):
        table[ids[i]] = values[i]


@compiled
def look_up(ids: Any, table: Any, values: Any) -> None:
    """Read a value per id from a table."""
    for i in range(len(ids)):
        values[i] = table[ids[i]]


@compiled
def spread(numbers: Any, values: Any, out: Any) -> None:
    """Write values to the places that their numbers name; a negative number names none."""
    for i in range(len(numbers)):
        if numbers[i] >= 0:
            out[numbers[i]] = values[i]


@compiled
def scale(norms: Any, candidates: Any, columns: Any, unit: float, out: Any) -> None:
    """Norms in integers as floating-point numbers, times the scale of their column if there are."""
    for i in range(len(norms)):
        out[i] = norms[i] * unit
    if len(columns):
        for i in range(len(norms)):
            out[i] *= columns[candidates[i]]


@compiled
def degrees_of(indptr: Any, rows: Any, degrees: Any, ends: Any) -> None:
    """In-degrees of rows, and their running sums from 0 on."""
    total = 0
    ends[0] = 0
    for i in range(len(rows)):
        degree = indptr[rows[i] + 1] - indptr[rows[i]]
        degrees[i] = degree
        total += degree
        ends[i + 1] = total


@compiled
def edges_of(indptr: Any, rows: Any) -> int:
    """Sum of the in-degrees of rows."""
    total = 0
    for v in rows:
        total += indptr[v + 1] - indptr[v]
    return total


@compiled
def set_bits(ids: Any, bits: Any) -> None:
    """Set the bit of every id."""
    for i in range(len(ids)):
        bits[ids[i] >> 6] |= ONE << np.uint64(ids[i] & 63)


@compiled
def clear_bits(ids: Any, bits: Any) -> None:
    """Clear the words in which ids have a bit."""
    for i in range(len(ids)):
        bits[ids[i] >> 6] = np.uint64(0)


@compiled
def restrict(
    indptr: Any,
    indices: Any,
    rows: Any,
    bits: Any,
    out: Any,
    picks: Any,
    start: int,
    stop: int,
    at: int,
) -> tuple[int, int]:
    """Write the entries of rows start .. stop-1 whose columns were drawn, and their numbers.

    Args:
        indptr, indices: of the graph.
        rows: vertices.
        bits: a bit per vertex, 1 where the column was drawn: small enough for the nearest cache.
        out: is written from place `at` on.
        picks: entries of row i, written to place i + 1.

    Returns:
        the row and the place at which it stopped for want of room.
    """
    for i in range(start, stop):
        ask_for_rows(indptr, indices, rows, i, stop)
        first, last = indptr[rows[i]], indptr[rows[i] + 1]
        if at + last - first > len(out):
            return i, at
        before = at
        for e in range(first, last):
            u = np.int64(indices[e])
            out[at] = u
            is_drawn: Any = np.int64((bits[u >> 6] >> np.uint64(u & 63)) & ONE)
            at += is_drawn
        picks[i + 1] = at - before
    return stop, at


@compiled
def rename(entries: Any, numbers: Any) -> None:
    """Replace every entry by its number, in place."""
    for e in range(len(entries)):
        entries[e] = numbers[entries[e]]
