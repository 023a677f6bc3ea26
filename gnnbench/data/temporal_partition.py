"""Owners of the vertices of a stream: decided when a vertex first occurs, never changed.

A vertex's list of edges lives with its owner. The stream is cut into chunks (the offline phase,
then each increment); the vertices that are new in a chunk are placed in the order of their first
event, from what is known by the end of that chunk.

hash     splitmix64(vertex) mod P
degree   the owner with the fewest stored edges so far takes the vertex with its edges of the chunk
ldg      linear deterministic greedy: most neighbours in the chunk, times (1 - vertices / cap);
         cap = 1.1 V / P, rounded up; ties: the fewest vertices, then the lowest rank

Vertices without events go to the owner with the fewest vertices. The table depends on the stream
and the chunks only.

Source: temporal reference section 9, invariant D1; LDG: Stanton and Kliot, KDD 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.draws import compiled
from gnnbench.data.stream import EdgeStream
from gnnbench.data.temporal_csr import TemporalCsr

PARTITIONERS = ("hash", "degree", "ldg")
SLACK = 1.1
"""Vertices of a partition of `ldg`, at most, relative to the mean."""
_NOBODY = -1


def stream_owners(
    stream: EdgeStream, ranks: int, partitioner: str, chunks: Sequence[int]
) -> NDArray[np.int32]:
    """Return the owner of every vertex, int32 [V].

    Args:
        ranks: P.
        partitioner: one of `PARTITIONERS`.
        chunks: where each chunk begins, and the end of the last, in events.
    """
    count = stream.num_nodes
    if partitioner == "hash":
        mixed = keys.mix64_array(np.arange(count, dtype=np.uint64) + np.uint64(keys.GOLDEN))
        return (mixed % np.uint64(ranks)).astype(np.int32)
    owner = np.full(count, _NOBODY, np.int32)
    loads = np.zeros((2, ranks), np.int64)  # vertices, stored edges
    cap = -(-SLACK * count // ranks)
    for first, stop in pairwise(chunks):
        if stop <= first:
            continue
        part = slice(first, stop)
        ends = np.asarray(stream.sources[part]), np.asarray(stream.destinations[part])
        graph = TemporalCsr(count, *ends, np.asarray(stream.times[part]))
        order = _first_seen(*ends)
        _place(graph.rows, order, partitioner == "ldg", cap, owner, loads)
    _deal(owner, loads[0])
    return owner


def _first_seen(sources: NDArray[Any], destinations: NDArray[Any]) -> NDArray[np.int64]:
    """Distinct vertices in the order of their first event, the source before the destination."""
    both = np.stack([sources, destinations], 1).ravel()
    found, first = np.unique(both, return_index=True)
    return found[np.argsort(first, kind="stable")].astype(np.int64)


@compiled
def _deal(owner: Any, counts: Any) -> None:
    """Give each vertex that nobody owns to the rank with the fewest."""
    for node in range(len(owner)):
        if owner[node] < 0:
            mine = np.argmin(counts)
            owner[node] = mine
            counts[mine] += 1


@compiled
def _place(rows: Any, order: Any, by_links: bool, cap: float, owner: Any, loads: Any) -> None:
    ranks = loads.shape[1]
    near = np.zeros(ranks, np.int64)
    for node in order:
        degree = rows.indptr[node + 1] - rows.indptr[node]
        mine = owner[node]
        if mine < 0:
            near[:] = 0
            if by_links:
                for at in range(rows.indptr[node], rows.indptr[node + 1]):
                    other = owner[rows.neighbours[at]]
                    if other >= 0:
                        near[other] += 1
            mine = 0
            best = -1.0
            for rank in range(ranks):
                if by_links:
                    if loads[0, rank] >= cap:
                        continue
                    score = near[rank] * (1.0 - loads[0, rank] / cap)
                    better = score > best or (score == best and loads[0, rank] < loads[0, mine])
                else:
                    score = 0.0
                    better = best < 0 or loads[1, rank] < loads[1, mine]
                if better:
                    best, mine = score, rank
            owner[node] = mine
            loads[0, mine] += 1
        loads[1, mine] += degree
