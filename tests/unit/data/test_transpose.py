"""The transpose of a pattern, on graphs small enough to see."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.transpose import is_symmetric, transposed

edges = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=30)


def graph_of(pairs: list[tuple[int, int]], *, undirected: bool) -> Graph:
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    return from_edges("g", ends[:, 0], ends[:, 1], 8, undirected=undirected)


def dense(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    found = np.zeros((8, 8), bool)
    for row in range(8):
        found[row, indices[indptr[row] : indptr[row + 1]]] = True
    return found


@given(pairs=edges)
def test_rows_become_columns(pairs: list[tuple[int, int]]) -> None:
    graph = graph_of(pairs, undirected=False)
    indptr, indices = transposed(graph)
    assert np.array_equal(dense(indptr, indices), dense(graph.indptr, graph.indices).T)
    assert indices.dtype == np.int32
    for row in range(8):
        assert np.all(np.diff(indices[indptr[row] : indptr[row + 1]]) > 0)


@given(pairs=edges, undirected=st.booleans())
def test_symmetry_is_seen_in_the_edges_and_not_believed(
    pairs: list[tuple[int, int]], undirected: bool
) -> None:
    graph = graph_of(pairs, undirected=undirected)
    graph = dataclasses.replace(graph, undirected=not undirected)  # a wrong claim
    matrix = dense(graph.indptr, graph.indices)
    assert is_symmetric(graph) == np.array_equal(matrix, matrix.T)
