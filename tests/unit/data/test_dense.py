"""DENSE samples: invariants 16 and 17 of the out-of-core reference, and what they cost."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.base import example
from gnnbench.data.dense import DenseSample, DenseSampler
from gnnbench.data.frontier import occupancy_frontier
from gnnbench.data.histogram import binned
from gnnbench.data.sampling import Batch, NeighbourSampler
from gnnbench.data.source import Library


def csc(neighbours: list[list[int]]) -> tuple[Any, Any]:
    indptr = np.cumsum([0, *map(len, neighbours)])
    return indptr, np.array([u for own in neighbours for u in own], np.int32)


def drawn(neighbours: list[list[int]], targets: list[int], fanouts: list[int]) -> DenseSample:
    return DenseSampler(*csc(neighbours), fanouts, 3).draw(np.array(targets, np.int64), 0, 0)


GRAPHS = st.integers(1, 9).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(0, n - 1), unique=True, max_size=n), min_size=n, max_size=n
    )
)
FANOUTS = st.lists(st.sampled_from([-1, 0, 1, 2, 3]), min_size=1, max_size=4)


def test_the_worked_example() -> None:
    """Section 5: N(4) = {2, 1}, N(2) = {3}, N(1) = {0}, N(3) = {4, 0}; targets 4 and 2."""
    sample = drawn([[], [0], [3], [4, 0], [2, 1]], [4, 2], [-1, -1])
    found = sample.as_published()
    assert found.node_ids.tolist() == [0, 1, 3, 4, 2]
    assert found.hop_offsets.tolist() == [0, 1, 3, 5]
    assert found.nbrs.tolist() == [0, 4, 0, 2, 1, 3]
    assert found.nbr_offsets.tolist() == [0, 1, 3, 5]
    assert found.repr_map.tolist() == [0, 3, 0, 4, 1, 2]
    first, second = sample.batch().blocks
    assert (first.num_dst, first.num_src, first.num_edges) == (4, 5, 6)
    # After layer 1 without Delta_0: lists of 4 and 2 only, of the rows 4, 2, 1, 3.
    assert (second.num_dst, second.num_src) == (2, 4)
    assert second.indptr.tolist() == [0, 2, 3]
    assert second.indices.tolist() == [1, 2, 3]
    assert np.shares_memory(first.indices, second.indices)


@given(graph=GRAPHS, fanouts=FANOUTS, data=st.data())
def test_the_arrays_fit_together(graph: list[list[int]], fanouts: list[int], data: Any) -> None:
    targets = data.draw(st.permutations(range(len(graph))).map(lambda p: p[: len(p) // 2 + 1]))
    sample = drawn(graph, targets, fanouts)
    found, hops = sample.as_published(), len(fanouts)
    assert len(set(found.node_ids.tolist())) == len(found.node_ids)
    assert found.node_ids[len(found.node_ids) - len(targets) :].tolist() == targets
    assert len(found.hop_offsets) == hops + 2
    assert found.hop_offsets[-1] == len(found.node_ids)
    assert len(found.nbr_offsets) == len(found.node_ids) - found.hop_offsets[1]
    assert found.node_ids[found.repr_map].tolist() == found.nbrs.tolist()
    ends = [*found.nbr_offsets.tolist(), len(found.nbrs)]
    expanded = found.node_ids[found.hop_offsets[1] :].tolist()
    hop_of = np.repeat(np.arange(hops, 0, -1), np.diff(found.hop_offsets)[1:])
    for vertex, hop, start, stop in zip(expanded, hop_of, ends[:-1], ends[1:], strict=True):
        own = found.nbrs[start:stop].tolist()
        fanout = fanouts[hop - 1]
        most = len(graph[vertex]) if fanout < 0 else min(fanout, len(graph[vertex]))
        assert len(set(own)) == len(own) == most
        assert set(own) <= set(graph[vertex])


def outputs(batch: Batch, x: Any, weights: list[Any]) -> Any:
    """Layers of tanh(h_v A + sum of h_u B) over the blocks."""
    rows = x[batch.input_nodes]
    for block, (own, others) in zip(batch.blocks, weights, strict=True):
        summed = np.zeros((block.num_dst, rows.shape[1]))
        places = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
        np.add.at(summed, places, rows[block.indices])
        rows = np.tanh(rows[: block.num_dst] @ own + summed @ others)
    return rows


def recursion(sample: DenseSample, x: Any, weights: list[Any]) -> Any:
    """The same by definition: h_l(v) from h_{l-1} of v and of its one list of neighbours."""
    lists = {
        int(sample.nodes[row]): sample.nodes[
            sample.indices[sample.indptr[row] : sample.indptr[row + 1]]
        ].tolist()
        for row in range(len(sample.indptr) - 1)
    }

    @cache
    def value(layer: int, vertex: int) -> tuple[float, ...]:
        if layer == 0:
            return tuple(x[vertex])
        own, others = weights[layer - 1]
        summed = sum((np.array(value(layer - 1, u)) for u in lists[vertex]), np.zeros(x.shape[1]))
        return tuple(np.tanh(np.array(value(layer - 1, vertex)) @ own + summed @ others))

    layers = len(weights)
    return np.array([value(layers, int(v)) for v in sample.nodes[: sample.starts[1]]])


@given(graph=GRAPHS, fanouts=FANOUTS)
def test_layers_equal_the_naive_recursion(graph: list[list[int]], fanouts: list[int]) -> None:
    """Invariant 16, self loops, isolated vertices and fan-out 0 included."""
    rng = np.random.default_rng(len(graph))
    x = rng.normal(size=(len(graph), 3))
    weights = [(rng.normal(size=(3, 3)), rng.normal(size=(3, 3))) for _ in fanouts]
    sample = drawn(graph, list(range(0, len(graph), 2)), fanouts)
    found, wanted = outputs(sample.batch(), x, weights), recursion(sample, x, weights)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@given(graph=GRAPHS, layers=st.integers(1, 4))
def test_all_neighbours_give_the_layers_of_the_full_graph(
    graph: list[list[int]], layers: int
) -> None:
    rng = np.random.default_rng(layers)
    x = rng.normal(size=(len(graph), 2))
    weights = [(rng.normal(size=(2, 2)), rng.normal(size=(2, 2))) for _ in range(layers)]
    seeds = np.arange(len(graph))[::-1].copy()
    made = (
        sampler(*csc(graph), [-1] * layers, 0).sample(seeds, 0, 0)
        for sampler in (DenseSampler, NeighbourSampler)
    )
    found, wanted = (outputs(batch, x, weights) for batch in made)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("graph", "targets", "nodes", "edges"),
    [
        ([[], []], [1], [1], 0),  # an isolated target
        ([[0]], [0], [0], 1),  # one vertex with a self loop
        ([[1], []], [0], [0, 1], 1),  # the second hop finds nothing
        ([[1], [0]], [], [], 0),
    ],
)
def test_edge_cases(graph: Any, targets: Any, nodes: Any, edges: int) -> None:
    """Invariant 17."""
    sample = drawn(graph, targets, [2, 2])
    assert sample.nodes.tolist() == nodes
    assert len(sample.indices) == edges
    assert [block.num_dst for block in sample.batch().blocks][-1] == len(targets)


def test_repeated_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        drawn([[1], [0]], [0, 0], [1])


def costs(layers: int) -> tuple[int, int, int, int]:
    """Vertices and edges of a batch: DENSE, and per layer."""
    run = example("sampled", 1, options={"num_nodes": 20_000, "mean_degree": 20.0})
    graph = Library([]).open(run.dataset)
    seeds = np.random.default_rng(0).permutation(graph.num_nodes)[:200].astype(np.int64)
    dense = DenseSampler(graph.indptr, graph.indices, [10] * layers, 5).draw(seeds, 0, 0)
    plain = NeighbourSampler(graph.indptr, graph.indices, [10] * layers, 5).sample(seeds, 0, 0)
    return (
        len(dense.nodes),
        len(dense.indices),
        len(plain.input_nodes),
        sum(block.num_edges for block in plain.blocks),
    )


def test_dense_draws_less_the_deeper_the_model() -> None:
    """Edges drawn for one to five layers; equal for one, where nothing is reused."""
    ratios = []
    for layers in range(1, 6):
        nodes, edges, plain_nodes, plain_edges = costs(layers)
        assert nodes <= plain_nodes
        ratios.append(plain_edges / edges)
    assert ratios[0] == 1.0
    assert ratios == sorted(ratios)
    assert ratios[4] > 2.0


def test_expected_sizes_are_near_the_drawn_ones() -> None:
    """Profiles estimate DENSE samples by the frontier that expands new vertices only."""
    run = example("sampled", 1, options={"num_nodes": 6000, "mean_degree": 15.0})
    graph = Library([]).open(run.dataset)
    fanouts, train = [6, 4, 3], graph.train_nodes()
    sampler = DenseSampler(graph.indptr, graph.indices, fanouts, 5)
    draws = [
        sampler.draw(np.random.default_rng(i).permutation(train)[:100], 0, i) for i in range(5)
    ]
    vertices, hops = occupancy_frontier(
        *binned(graph.in_degrees()),
        len(train),
        fanouts,
        100,
        "expand_new",
        undirected=graph.undirected,
    )
    assert vertices[0] == pytest.approx(np.mean([len(d.nodes) for d in draws]), rel=0.05)
    assert sum(hops) == pytest.approx(np.mean([len(d.indices) for d in draws]), rel=0.05)
