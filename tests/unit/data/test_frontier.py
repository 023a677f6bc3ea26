"""SA-S6: predicted batch sizes against Monte-Carlo with a plain sampler."""

from __future__ import annotations

import numpy as np
import pytest

from gnnbench.data.expected import drawn_by_lot
from gnnbench.data.frontier import occupancy_frontier, vip_frontier, vip_inclusion
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import from_edges
from gnnbench.data.sampling import NeighbourSampler
from gnnbench.data.splits import random_split
from gnnbench.errors import SpecError, UnknownName


@pytest.fixture(scope="module")
def block_graph():
    return planted_partition(8000, 14, 8, 2, homophily=0.7, train_fraction=0.3, seed=4)


def draw(graph, fanouts, batch, computation_graph, rng):
    """Sizes of one batch, input layer first, by the plainest means."""
    seeds = rng.choice(graph.train_nodes(), batch, replace=False)
    seen, expand = set(seeds.tolist()), seeds.tolist()
    vertices, edges = [len(seen)], []
    for fanout in fanouts:
        found, drawn = set(), 0
        for node in expand:
            near = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
            if 0 <= fanout < len(near):
                near = rng.choice(near, fanout, replace=False, shuffle=False)
            found.update(near.tolist())
            drawn += len(near)
        fresh = found - seen
        seen |= fresh
        expand = list(seen) if computation_graph == "per_layer" else list(fresh)
        vertices.append(len(seen))
        edges.append(drawn)
    return np.array(vertices[::-1] + edges[::-1], float)


@pytest.mark.parametrize("computation_graph", ["per_layer", "expand_new"])
@pytest.mark.parametrize(("fanouts", "batch"), [((10, 5), 50), ((4, 4, 4), 20), ((-1,), 100)])
def test_vip_is_within_a_tenth_of_monte_carlo(block_graph, computation_graph, fanouts, batch):
    rng = np.random.default_rng(0)
    drawn = np.mean(
        [draw(block_graph, fanouts, batch, computation_graph, rng) for _ in range(12)], axis=0
    )
    vertices, edges = vip_frontier(block_graph, fanouts, batch, computation_graph=computation_graph)
    assert np.array([*vertices, *edges]) == pytest.approx(drawn, rel=0.05)


def test_the_histogram_estimate_is_near_monte_carlo_too(block_graph):
    rng = np.random.default_rng(1)
    drawn = np.mean([draw(block_graph, (8, 4), 64, "per_layer", rng) for _ in range(12)], axis=0)
    values, counts = np.unique(block_graph.in_degrees(), return_counts=True)
    vertices, edges = occupancy_frontier(values, counts, block_graph.num_train, (8, 4), 64)
    assert np.array([*vertices, *edges]) == pytest.approx(drawn, rel=0.06)


@pytest.mark.parametrize("fanouts", [(10, 5), (20, -1)])
def test_edges_by_lot_are_near_those_of_the_sampler(block_graph, fanouts):
    sampler = NeighbourSampler(block_graph.indptr, block_graph.indices, fanouts, seed=3)
    drawn = sampler.sample(block_graph.train_nodes()[:400], 0, 0)
    values, counts = np.unique(block_graph.in_degrees(), return_counts=True)
    found = drawn_by_lot(values, counts, fanouts, drawn.sizes[1])
    assert found == pytest.approx(drawn.by_lot, rel=0.1)


def test_a_single_bin_overshoots_as_the_reference_says(block_graph):
    values, counts = np.unique(block_graph.in_degrees(), return_counts=True)
    fine = occupancy_frontier(values, counts, block_graph.num_train, (8, 8, 8), 64)[0][0]
    n = block_graph.num_nodes
    coarse = occupancy_frontier(
        [block_graph.num_edges / n], [n], block_graph.num_train, (8, 8, 8), 64
    )[0][0]
    assert 1.04 < coarse / fine < 1.6


def test_inclusion_sums_to_the_input_vertices(block_graph):
    chance = vip_inclusion(block_graph, (6, 3), 32)
    assert chance.min() >= 0 and chance.max() <= 1
    assert chance.sum() == pytest.approx(vip_frontier(block_graph, (6, 3), 32)[0][0])


def test_full_neighbourhood_of_all_training_nodes_is_exact():
    graph = from_edges(
        "arcs",
        [1, 2, 3],
        [0, 1, 1],
        5,
        undirected=False,
        train_mask=np.array([1, 0, 0, 0, 0], bool),
    )
    assert vip_frontier(graph, (-1, -1), 1) == ((4.0, 2.0, 1.0), (3.0, 1.0))
    assert vip_frontier(graph, (-1, -1), 1, computation_graph="expand_new") == (
        (4.0, 2.0, 1.0),
        (2.0, 1.0),
    )


def test_batches_larger_than_the_training_set_take_all_of_it():
    graph = random_split(from_edges("pair", [0], [1], 2), 1.0, 0.0)
    assert vip_frontier(graph, (1,), 99) == ((2.0, 2.0), (2.0,))
    assert occupancy_frontier([1.0], [2], 2, (1,), 99)[0] == (2.0, 2.0)


def test_a_graph_without_training_nodes_has_empty_batches():
    graph = from_edges("g", [0], [1], 2, train_mask=np.zeros(2, bool))
    assert vip_frontier(graph, (2,), 4) == ((0.0, 0.0), (0.0,))
    assert occupancy_frontier([1.0], [2], 0, (2,), 4) == ((0.0, 0.0), (0.0,))


def test_wrong_requests_are_refused(block_graph):
    with pytest.raises(UnknownName, match="did you mean 'per_layer'"):
        vip_frontier(block_graph, (2,), 4, computation_graph="perlayer")
    with pytest.raises(SpecError, match="fanouts_from_seeds"):
        occupancy_frontier([1.0], [2], 1, (-2,), 4)
