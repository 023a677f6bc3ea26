from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.generators import planted_partition, uniform
from gnnbench.data.graph import from_edges
from gnnbench.data.partition import partition, report
from gnnbench.data.splits import random_split
from gnnbench.errors import DataError, SpecError, UnknownName, Unsupported


def two_cliques(size=8):
    """Two complete graphs joined by one edge."""
    edges = [(a + s, b + s) for s in (0, size) for a in range(size) for b in range(a)]
    edges.append((0, size))
    return from_edges("cliques", *np.array(edges).T, 2 * size)


@pytest.mark.parametrize("objective", ["vol", "cut"])
def test_metis_finds_the_single_bridge(objective):
    found = report(two_cliques(), partition(two_cliques(), 2, "metis", objective=objective), 2)
    assert found.cut_edges == 2 and found.halo == (1, 1) and found.node_balance == 1.0


def test_the_objectives_trade_volume_against_cut():
    graph = planted_partition(6000, 12, 8, 2, homophily=0.6, seed=2)
    vol, cut = (report(graph, partition(graph, 8, objective=o, seed=1), 8) for o in ("vol", "cut"))
    assert vol.halo_copies < cut.halo_copies and vol.cut_edges > cut.cut_edges


@pytest.mark.parametrize("method", ["metis", "fennel", "hash", "chunk"])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 7, 40])
def test_every_node_gets_one_part_in_range(method, num_parts):
    graph = uniform(20, 3, seed=1)
    parts = partition(graph, num_parts, method)
    assert parts.dtype == np.int32 and parts.shape == (20,)
    assert parts.min() >= 0 and parts.max() < num_parts
    if num_parts > 20 and method != "hash":
        assert len(np.unique(parts)) == 20


@pytest.mark.parametrize("method", ["metis", "fennel", "hash", "chunk"])
def test_degenerate_graphs_are_partitioned(method):
    assert partition(from_edges("none", [], [], 0), 3, method).shape == (0,)
    assert partition(from_edges("bare", [], [], 5), 2, method).max() <= 1
    lonely = from_edges("lonely", [0, 1], [1, 2], 30)
    assert len(partition(lonely, 4, method)) == 30
    arcs = from_edges("arcs", [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], 8, undirected=False)
    assert len(partition(arcs, 3, method)) == 8


@pytest.mark.parametrize("method", ["metis", "hash"])
def test_a_seed_repeats_itself(method):
    graph = uniform(500, 8, seed=1)
    a, b, c = (partition(graph, 4, method, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_chunks_are_contiguous_and_even():
    assert partition(from_edges("g", [0], [1], 7), 3, "chunk").tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_hash_spreads_evenly():
    sizes = np.bincount(partition(uniform(40_000, 1), 8, "hash"), minlength=8)
    assert sizes.max() / sizes.mean() < 1.05


@pytest.mark.parametrize("method", ["metis", "chunk"])
def test_edges_can_be_balanced(method):
    graph = planted_partition(4000, 10, 4, 2, degree_exponent=2.1, seed=1)
    # Sorted by degree, equal chunks of nodes would hold very different numbers of edges.
    order = np.argsort(graph.in_degrees())
    rank = np.argsort(order)
    dst = np.repeat(np.arange(4000), graph.in_degrees())
    graph = from_edges("sorted", rank[graph.indices], rank[dst], 4000)
    plain, even = (
        report(graph, partition(graph, 4, method, balance=b), 4) for b in ("nodes", "edges")
    )
    assert even.edge_balance < min(plain.edge_balance, 1.1)


@pytest.mark.parametrize("method", ["metis", "chunk"])
def test_training_nodes_can_be_balanced(method):
    graph = random_split(uniform(2000, 6, seed=2), seed=1)
    graph.train_mask[:] = np.arange(2000) < 200
    parts = partition(graph, 4, method, balance="train")
    assert report(graph, parts, 4).train_balance < (2.5 if method == "chunk" else 2.0)
    with pytest.raises(DataError, match="training split"):
        partition(uniform(10, 2), 2, balance="train")


def test_wrong_requests_are_refused():
    graph = uniform(10, 2)
    with pytest.raises(UnknownName, match="did you mean 'metis'"):
        partition(graph, 2, "metiss")
    with pytest.raises(UnknownName, match="objective"):
        partition(graph, 2, objective="speed")
    with pytest.raises(SpecError, match="num_parts: found 0"):
        partition(graph, 0)
    with pytest.raises(Unsupported, match="hash cannot balance edges"):
        partition(graph, 2, "hash", balance="edges")


@pytest.mark.parametrize("assignment", [[0, 1], [0, 1, 2], [0, -1, 0], [0.0, 1.0, 0.0]])
def test_an_assignment_that_does_not_fit_is_refused(assignment):
    with pytest.raises(DataError, match="assignment"):
        report(from_edges("g", [0], [1], 3), np.array(assignment), 2)


def test_the_report_of_a_path_is_as_counted_by_hand():
    path = from_edges("path", [0, 1, 2], [1, 2, 3], 4, train_mask=np.array([1, 1, 1, 0], bool))
    found = report(path, np.array([0, 0, 0, 1]), 3)
    assert found.nodes == (3, 1, 0) and found.edges == (5, 1, 0) and found.train == (3, 0, 0)
    assert found.halo == (1, 1, 0) and found.halo_copies == 2 and found.halo_per_node == 0.5
    assert found.cut_edges == 2 and found.cut_fraction == pytest.approx(1 / 3)
    assert found.node_balance == pytest.approx(9 / 4) and found.train_balance == 3.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 9), st.integers(0, 9))
def test_report_sums_are_the_graph(num_nodes, num_edges, num_parts, seed):
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, num_nodes, (2, num_edges))
    graph = from_edges("g", src, dst, num_nodes, undirected=bool(seed % 2))
    found = report(graph, rng.integers(0, num_parts, num_nodes), num_parts)
    assert sum(found.nodes) == num_nodes and sum(found.edges) == graph.num_edges
    assert found.halo_copies <= found.cut_edges
