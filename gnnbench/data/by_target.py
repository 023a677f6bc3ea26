"""Edges in any order put into rows by target: two counting sorts, linear in edges and vertices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled


def by_target(
    sources: NDArray[np.int32], targets: NDArray[np.int32], num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return indptr int64 [N + 1] and indices int32 [E], the sources of each target, rising.

    Args:
        sources, targets: ends of the edges, int32 [E], in any order; repeats are kept.
        num_nodes: N.
    """
    found: tuple[NDArray[np.int64], NDArray[np.int32]] = _by_target(sources, targets, num_nodes)
    return found


@compiled
def _by_target(sources: Any, targets: Any, num_nodes: Any) -> Any:
    edges = len(sources)
    place = np.zeros(num_nodes + 1, np.int64)
    indptr = np.zeros(num_nodes + 1, np.int64)
    for edge in range(edges):
        place[sources[edge] + 1] += 1
        indptr[targets[edge] + 1] += 1
    for node in range(num_nodes):
        place[node + 1] += place[node]
        indptr[node + 1] += indptr[node]
    rising, target_of = np.empty(edges, np.int32), np.empty(edges, np.int32)
    for edge in range(edges):
        source = sources[edge]
        rising[place[source]] = source
        target_of[place[source]] = targets[edge]
        place[source] += 1
    # A counting sort keeps the order of equal keys, so sources rise within each target.
    place[:num_nodes] = indptr[:num_nodes]
    indices = np.empty(edges, np.int32)
    for edge in range(edges):
        target = target_of[edge]
        indices[place[target]] = rising[edge]
        place[target] += 1
    return indptr, indices
