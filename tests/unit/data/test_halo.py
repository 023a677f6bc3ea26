"""Halo structure: FG-13, FG-15, every edge once, empty parts and boundaries, directed graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.formats import native
from gnnbench.data.generators import uniform
from gnnbench.data.graph import from_edges
from gnnbench.data.halo import halo_counts, halo_structure


@st.composite
def partitioned(draw):
    num_nodes, num_parts = draw(st.integers(1, 25)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    src, dst = rng.integers(0, num_nodes, (2, draw(st.integers(0, 70))))
    graph = from_edges("g", src, dst, num_nodes, undirected=draw(st.booleans()))
    used = rng.permutation(num_parts)[: draw(st.integers(1, num_parts))]
    return graph, rng.choice(used, num_nodes), num_parts


def arcs_of(graph):
    dst = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return list(zip(graph.indices.tolist(), dst.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(partitioned())
def test_halo_copies_are_the_remote_parts_each_node_feeds_fg_13(case):
    graph, parts, num_parts = case
    feeds = {(u, parts[v]) for u, v in arcs_of(graph) if parts[u] != parts[v]}
    assert halo_structure(graph, parts, num_parts).halo_copies == len(feeds)


@settings(max_examples=150, deadline=None)
@given(partitioned())
def test_what_i_sends_j_is_what_j_receives_from_i_fg_15(case):
    graph, parts, num_parts = case
    halo = halo_structure(graph, parts, num_parts)
    for i in halo.ranks:
        for j in halo.ranks:
            sent = i.send_to(j.rank)
            assert sent.tolist() == j.receive_from(i.rank).tolist()
            assert len(sent) == halo.counts[j.rank, i.rank]
            assert np.all(np.diff(sent) > 0) and np.all(parts[sent] == i.rank)
        assert len(i.send_to(i.rank)) == 0
        assert i.owned[i.send_rows].tolist() == i.send.tolist()


@settings(max_examples=150, deadline=None)
@given(partitioned())
def test_every_node_is_owned_once_and_every_edge_is_in_one_rank(case):
    graph, parts, num_parts = case
    halo = halo_structure(graph, parts, num_parts)
    owned = np.concatenate([rank.owned for rank in halo.ranks])
    assert sorted(owned.tolist()) == list(range(graph.num_nodes))
    seen, positions = [], []
    for rank in halo.ranks:
        assert np.all(np.diff(rank.owned) > 0) and np.all(parts[rank.owned] == rank.rank)
        columns = np.concatenate([rank.owned, rank.halo])
        rows = np.repeat(rank.owned, np.diff(rank.indptr))
        seen += zip(columns[rank.indices].tolist(), rows.tolist(), strict=True)
        positions += rank.csr.edges.tolist()
        assert set(rank.indices[rank.indices >= rank.num_owned]) == set(
            range(rank.num_owned, rank.num_columns)
        )
    assert sorted(seen) == sorted(arcs_of(graph))
    assert sorted(positions) == list(range(graph.num_edges))


@settings(max_examples=100, deadline=None)
@given(partitioned())
def test_the_transpose_holds_the_same_edges_by_column(case):
    graph, parts, num_parts = case
    for rank in halo_structure(graph, parts, num_parts).ranks:
        dense = np.zeros((rank.num_owned, rank.num_columns), int)
        rows = np.repeat(np.arange(rank.num_owned), np.diff(rank.indptr))
        dense[rows, rank.indices] = np.arange(len(rank.indices)) + 1
        back = rank.transposed
        columns = np.repeat(np.arange(rank.num_columns), np.diff(back.indptr))
        assert np.array_equal(dense[back.indices, columns], back.edges + 1)
        assert rank.indices.dtype == back.indices.dtype == np.int32


@settings(max_examples=100, deadline=None)
@given(partitioned())
def test_counts_alone_agree_with_the_structure(case):
    graph, parts, num_parts = case
    halo = halo_structure(graph, parts, num_parts)
    counts, edges, nodes = halo_counts(graph, parts, num_parts)
    assert np.array_equal(counts, halo.counts)
    assert edges.tolist() == [len(rank.indices) for rank in halo.ranks]
    assert nodes.tolist() == [rank.num_owned for rank in halo.ranks]


def test_a_directed_halo_goes_with_the_edges_only():
    graph = from_edges("arcs", [0, 0, 1], [2, 3, 2], 4, undirected=False)
    halo = halo_structure(graph, np.array([0, 0, 1, 1]), 2)
    assert halo.counts.tolist() == [[0, 0], [2, 0]]
    assert halo.ranks[0].halo.tolist() == [] and halo.ranks[1].halo.tolist() == [0, 1]
    assert halo.ranks[1].indices.tolist() == [2, 3, 2]


def test_halo_columns_are_ordered_by_owner_then_id():
    # Node 3 of rank 0 hears from 4, 1 (rank 2) and 2, 0 (rank 1).
    graph = from_edges("star", [4, 1, 2, 0], [3, 3, 3, 3], 5, undirected=False)
    rank = halo_structure(graph, np.array([1, 2, 1, 0, 2]), 3).ranks[0]
    assert rank.halo.tolist() == [0, 2, 1, 4] and rank.halo_offsets.tolist() == [0, 0, 2, 4]
    assert rank.indices.tolist() == [1, 3, 2, 4]  # in global order 0, 1, 2, 4


def test_empty_parts_and_boundaries_are_empty_arrays():
    graph = from_edges("pairs", [0, 2], [1, 3], 4)
    halo = halo_structure(graph, np.array([0, 0, 2, 2]), 4)
    assert halo.halo_copies == 0
    for rank in halo.ranks:
        assert len(rank.halo) == len(rank.send) == 0
        assert len(rank.indptr) == rank.num_owned + 1
    assert halo.ranks[1].transposed.indptr.tolist() == [0]


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_graph_without_nodes_has_a_structure(num_parts):
    halo = halo_structure(from_edges("none", [], [], 0), np.zeros(0, np.int32), num_parts)
    assert halo.halo_copies == 0 and len(halo.ranks) == num_parts


def test_one_part_has_no_halo_and_the_graph_itself_as_its_edges():
    graph = from_edges("ring", [0, 1, 2, 3], [1, 2, 3, 0], 4)
    rank = halo_structure(graph, np.zeros(4, int), 1).ranks[0]
    assert np.array_equal(rank.indices, graph.indices) and rank.num_columns == 4


def test_a_mapped_graph_gives_the_same_structure(tmp_path):
    graph = uniform(200, 6, seed=1)
    parts = np.arange(200) % 3
    mapped = native.load(native.save(graph, tmp_path / "g"))
    one, two = (halo_structure(g, parts, 3) for g in (graph, mapped))
    for a, b in zip(one.ranks, two.ranks, strict=True):
        assert np.array_equal(a.indices, b.indices) and np.array_equal(a.send, b.send)
        assert np.array_equal(a.transposed.indices, b.transposed.indices)
