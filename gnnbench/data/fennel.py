"""Fennel: partition a graph that is read as a stream, within a few bytes per vertex.

Vertices come in the order of their ids, each with its neighbours. A vertex goes to the part i with
the highest score

    |N(v) and S_i| - alpha gamma |S_i|^(gamma - 1)

among the parts that have room: at most `SLACK` times the mean. gamma = 1.5 and
alpha = sqrt(k) m / n^1.5, with m edges, n vertices and k parts. Further passes read the graph again
and move vertices, knowing where all neighbours are (restreaming).

Memory: 4 bytes per vertex, 24 per part, and one piece of the edges. Known deviation: of a directed
graph only in-neighbours are stored, so out-neighbours do not count in a score.

Source: Tsourakakis, Gkantsidis, Radunovic, Vojnovic, "FENNEL: Streaming Graph Partitioning for
Massive Scale Graphs", WSDM 2014; restreaming: Nishimura and Ugander, KDD 2013.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled
from gnnbench.data.graph import Graph
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.steps import Ints

SLACK = 1.1
"""Largest part over the mean, for parts of many vertices."""
PASSES = 3
_EDGES_AT_ONCE = 1 << 20


def fennel(
    graph: Graph, num_parts: int, weights: Ints | None = None, *, passes: int = PASSES
) -> NDArray[np.int32]:
    """Return the part of every vertex, int32 [N].

    Args:
        graph: is read `passes` times from its first edge to its last; may be mapped.
        num_parts: k.
        weights: of the vertices, int64 [N], for the size of a part; None: 1 each.
        passes: over the graph.

    Cost: 2 E + k N operations per pass.
    """
    n, k = graph.num_nodes, num_parts
    assignment = np.full(n, -1, np.int32)
    if n == 0:
        return assignment
    total = n if weights is None else int(weights.sum())
    # Sizes are counted in mean weights, so that the formula holds for any weights.
    unit = total / n
    heaviest = 1.0 if weights is None else float(weights.max()) / unit
    capacity = max(SLACK * n / k, n / k + heaviest)
    # An undirected graph stores every edge twice.
    edges = graph.num_edges / (2 if graph.undirected else 1)
    scale = 1.5 * math.sqrt(k) * edges / n**1.5
    sizes, gains = np.zeros(k), np.zeros(k)
    indptr = np.asarray(graph.indptr)
    for _ in range(passes):
        start = 0
        while start < n:
            stop = int(np.searchsorted(indptr, indptr[start] + _EDGES_AT_ONCE, side="right")) - 1
            stop = min(max(stop, start + 1), n)
            piece = np.array(graph.indices[indptr[start] : indptr[stop]])
            ends = np.array(indptr[start : stop + 1]) - indptr[start]
            own = np.ones(stop - start) if weights is None else weights[start:stop] / unit
            _assign(ends, piece, start, own, assignment, sizes, gains, scale, capacity)
            forget_mapped_pages([graph.indices])
            start = stop
    return assignment


@compiled
def _assign(
    indptr: Any,
    indices: Any,
    first: Any,
    own: Any,
    assignment: Any,
    sizes: Any,
    gains: Any,
    scale: Any,
    capacity: Any,
) -> None:
    """Assign the vertices first, first + 1, ...; `gains` is zero before and after."""
    for row in range(len(indptr) - 1):
        vertex = first + row
        if assignment[vertex] >= 0:
            sizes[assignment[vertex]] -= own[row]
        for edge in range(indptr[row], indptr[row + 1]):
            part = assignment[indices[edge]]
            if part >= 0:
                gains[part] += 1.0
        best, highest = -1, -np.inf
        smallest = 0
        for part in range(len(sizes)):
            if sizes[part] < sizes[smallest]:
                smallest = part
            if sizes[part] + own[row] > capacity:
                continue
            score = gains[part] - scale * math.sqrt(max(sizes[part], 0.0))
            # Of equal scores the smaller part: without it the first part would fill up first.
            if score > highest or (score == highest and sizes[part] < sizes[best]):
                best, highest = part, score
        if best < 0:
            best = smallest
        assignment[vertex] = best
        sizes[best] += own[row]
        for edge in range(indptr[row], indptr[row + 1]):
            part = assignment[indices[edge]]
            if part >= 0:
                gains[part] = 0.0
        gains[best] = 0.0
