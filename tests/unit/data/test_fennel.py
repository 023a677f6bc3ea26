"""Fennel: a streaming partitioner."""

from __future__ import annotations

import numpy as np
import pytest

from gnnbench.data import fennel as module
from gnnbench.data.fennel import SLACK, fennel
from gnnbench.data.formats import native
from gnnbench.data.generators import planted_partition, uniform
from gnnbench.data.graph import from_edges
from gnnbench.data.partition import partition, report
from gnnbench.data.partitioners import compared, metis_bytes


@pytest.fixture(scope="module")
def communities():
    return planted_partition(4000, 12, 8, 2, homophily=0.9, seed=3)


def by_definition(graph, parts, passes):
    """The rule in plain Python, from the paper's formula."""
    n, k = graph.num_nodes, parts
    edges = graph.num_edges / (2 if graph.undirected else 1)
    alpha, gamma = np.sqrt(k) * edges / n**1.5, 1.5
    where, sizes = np.full(n, -1), np.zeros(k)
    for _ in range(passes):
        for v in range(n):
            if where[v] >= 0:
                sizes[where[v]] -= 1
            around = where[graph.indices[graph.indptr[v] : graph.indptr[v + 1]]]
            hits = np.bincount(around[around >= 0], minlength=k)
            score = hits - alpha * gamma * sizes ** (gamma - 1)
            score[sizes + 1 > max(SLACK * n / k, n / k + 1)] = -np.inf
            best = np.flatnonzero(score == score.max())
            where[v] = best[np.argmin(sizes[best])]
            sizes[where[v]] += 1
    return where


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("undirected", [True, False])
def test_every_vertex_goes_where_the_formula_says(passes, undirected):
    rng = np.random.default_rng(1)
    graph = from_edges("g", *rng.integers(0, 60, (2, 240)), 60, undirected=undirected)
    found = fennel(graph, 4, passes=passes)
    assert found.tolist() == by_definition(graph, 4, passes).tolist()


def test_pieces_of_the_stream_change_nothing(communities, monkeypatch):
    whole = fennel(communities, 8)
    monkeypatch.setattr(module, "_EDGES_AT_ONCE", 100)
    assert np.array_equal(fennel(communities, 8), whole)


def test_communities_are_cut_less_than_at_random_and_parts_are_even(communities):
    random = report(communities, partition(communities, 8, "hash"), 8)
    found = report(communities, partition(communities, 8, "fennel"), 8)
    assert found.cut_fraction < 0.6 * random.cut_fraction
    assert found.node_balance <= SLACK + 1e-9


def test_more_passes_cut_less(communities):
    cuts = [report(communities, fennel(communities, 8, passes=n), 8).cut_edges for n in (1, 3)]
    assert cuts[1] < cuts[0]


@pytest.mark.parametrize("balance", ["edges", "train"])
def test_weights_are_balanced(communities, balance):
    found = report(communities, partition(communities, 4, "fennel", balance=balance), 4)
    assert (found.edge_balance if balance == "edges" else found.train_balance) < 1.25


def test_a_mapped_graph_is_partitioned_as_one_in_memory(communities, tmp_path):
    native.save(communities, tmp_path / "g")
    mapped = native.load(tmp_path / "g")
    assert np.array_equal(fennel(mapped, 5), fennel(communities, 5))


def test_partitioners_are_compared_and_one_that_does_not_fit_says_so():
    graph = uniform(2000, 8, seed=1)
    rows = compared(graph, (2, 4), memory_bytes=10)
    assert [(row.method, row.parts) for row in rows[:4]] == [
        ("metis-cut", 2),
        ("metis-cut", 4),
        ("fennel", 2),
        ("fennel", 4),
    ]
    assert all(row.reason and row.memory_bytes == metis_bytes(graph) for row in rows[:2])
    assert all(0 < row.cut_fraction < 1 and not row.reason for row in rows[2:])
    free = compared(graph, (2,), ("metis-cut",))
    assert 0 < free[0].cut_fraction < 1
