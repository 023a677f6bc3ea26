"""The transpose of a sparse pattern, and whether one is needed at all."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph

Ints = NDArray[np.integer[Any]]


def is_symmetric(graph: Graph) -> bool:
    """Tell whether every edge is stored both ways, by looking at all of them.

    Cost: one pass over the edges and 8 N bytes, far less than the transpose itself.
    """
    return bool(_is_symmetric(np.asarray(graph.indptr), np.asarray(graph.indices)))


def transposed(graph: Graph) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return `indptr` and sorted `indices` by source instead of by destination."""
    found: tuple[NDArray[np.int64], NDArray[np.int32]] = _transposed(
        np.asarray(graph.indptr), np.asarray(graph.indices)
    )
    return found


@numba.njit(cache=True)
def _is_symmetric(indptr, indices):  # type: ignore[no-untyped-def]
    # Rows are visited in rising order, so the entries of the transpose appear in each of its rows
    # in rising order too: they must be met one by one in the row as it is stored.
    meet = indptr[:-1].copy()
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            column = indices[edge]
            at = meet[column]
            if at == indptr[column + 1] or indices[at] != row:
                return False
            meet[column] = at + 1
    return True


@numba.njit(cache=True)
def _transposed(indptr, indices):  # type: ignore[no-untyped-def]
    rows = len(indptr) - 1
    starts = np.zeros(rows + 1, np.int64)
    for column in indices:
        starts[column + 1] += 1
    for row in range(rows):
        starts[row + 1] += starts[row]
    write = starts[:-1].copy()
    found = np.empty(len(indices), np.int32)
    for row in range(rows):
        for edge in range(indptr[row], indptr[row + 1]):
            column = indices[edge]
            found[write[column]] = row
            write[column] += 1
    return starts, found
