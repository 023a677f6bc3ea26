"""Orders of the vertices of a graph: the same graph, with other numbers.

Results are the same up to the numbering (sampled batches are drawn by number, so they differ). What
changes is how near in memory the rows of neighbours lie.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.data.histogram import distinct
from gnnbench.data.partition import partition
from gnnbench.data.reuse import counted_reuse
from gnnbench.errors import UnknownName
from gnnbench.reuse import Reuse
from gnnbench.spec import ORDERS

ROWS_OF_PART = 1024
"""Vertices of a METIS part: 256 kB of rows of 64 float32, which fit the second cache of a core."""


def vertex_order(graph: Graph, order: str, seed: int = 0) -> NDArray[np.int64]:
    """The vertex at each place of an order, int64 [N].

    given: as read. random: by a seed. degree: the highest in-degree first. rcm: reverse
    Cuthill-McKee (1969), which keeps neighbours within a narrow band. metis: parts of about
    `ROWS_OF_PART` vertices with few edges between them, one after the other; ties in the given
    order.

    Raises UnknownName.
    """
    n = graph.num_nodes
    if order == "given":
        return np.arange(n)
    if order == "random":
        return np.random.default_rng(seed).permutation(n)
    if order == "degree":
        return np.argsort(-graph.in_degrees(), kind="stable")
    if order == "metis":
        parts = partition(graph, max(1, n // ROWS_OF_PART), objective="cut", seed=seed)
        return np.argsort(parts, kind="stable")
    if order != "rcm":
        raise UnknownName("order", order, ORDERS)
    import scipy.sparse
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    ones = np.ones(graph.num_edges, np.int8)
    pattern: Any = scipy.sparse.csr_array(
        (ones, graph.indices, graph.indptr.astype(np.int32)), shape=(n, n)
    )
    found = reverse_cuthill_mckee(scipy.sparse.csr_matrix(pattern), symmetric_mode=graph.undirected)
    return np.asarray(found, np.int64)


def reordered(graph: Graph, order: str, seed: int = 0) -> Graph:
    """The graph with its vertices in another order; the note `order` says which."""
    if order == "given":
        return graph
    return permuted(graph, vertex_order(graph, order, seed), order)


def permuted(graph: Graph, places: NDArray[np.int64], note: str) -> Graph:
    """The graph whose vertex i is vertex `places[i]` of this one.

    Cost: a sort of the edges of each vertex.
    """
    assert len(distinct(places)) == graph.num_nodes, "an order has every vertex once"
    indptr, indices = permuted_pattern(graph, places)
    held: dict[str, Any] = {
        name: None if (array := getattr(graph, name)) is None else np.asarray(array)[places]
        for name in ("features", "labels", "train_mask", "val_mask", "test_mask")
    }
    if graph.edge_weights is not None:
        held["edge_weights"] = np.asarray(graph.edge_weights)[np.argsort(_keys(graph, places))]
    notes = {**graph.notes, "order": note}
    return dataclasses.replace(
        graph, indptr=indptr, indices=indices, notes=notes, digest="", reuse=(), **held
    )


def permuted_pattern(
    graph: Graph, places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The topology of `permuted`, without its rows."""
    n = graph.num_nodes
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(graph.in_degrees()[places], out=indptr[1:])
    key = _keys(graph, places)
    key.sort()
    return indptr, (key % max(n, 1)).astype(np.int32)


def _keys(graph: Graph, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Destination and source of every edge in the new numbers, as one integer that sorts them."""
    n = graph.num_nodes
    number = np.empty(n, np.int64)
    number[places] = np.arange(n)
    key: NDArray[np.int64] = np.repeat(number, graph.in_degrees()) * max(n, 1)
    return key + number[graph.indices]


def reuse_by_order(graph: Graph, seed: int = 0) -> dict[str, Reuse]:
    """The reuse of the graph's rows in each order. Cost: METIS, and a sort of the edges each."""
    found = {"given": graph.reuse_of_rows()}
    for order in ORDERS[1:]:
        found[order] = counted_reuse(*permuted_pattern(graph, vertex_order(graph, order, seed)))
    return found
