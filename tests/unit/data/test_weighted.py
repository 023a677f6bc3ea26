"""Weighted neighbour sampling and draws with replacement: SA-S1, S3 and S5.

Power: each test of a mean is repeated with a known flaw, which it must find.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from gnnbench.data.expected import drawn_frontier
from gnnbench.data.generators import planted_partition
from gnnbench.data.profile import profile
from gnnbench.data.sampling import Batch, Block, NeighbourSampler, split_seeds
from gnnbench.data.weighted import WeightedSampler

GRAPH = planted_partition(60, 8, 3, 2, seed=4)
SEEDS = np.arange(0, 60, 4)
VALUES = 1.0 + np.random.default_rng(0).random(60)
BY_DEGREE = np.maximum(GRAPH.out_degrees(), 1.0)
DRAWS = 4000
BY_EDGE = 10.0 ** np.random.default_rng(1).uniform(-0.5, 0.5, GRAPH.num_edges).astype(np.float32)
KINDS = {
    "plain": (None, False),
    "edges": (BY_EDGE, False),
    "edges, again": (BY_EDGE, True),
    "weighted": (BY_DEGREE, False),
    "weighted, again": (BY_DEGREE, True),
    "again": (None, True),
}


def sampler(name: str, fanouts: tuple[int, ...] = (3,), threads: int = 1) -> WeightedSampler:
    weights, replacement = KINDS[name]
    by_edge = weights is BY_EDGE
    return WeightedSampler(
        GRAPH.indptr,
        GRAPH.indices,
        fanouts,
        7,
        threads,
        weights=None if by_edge else weights,
        edge_weights=weights if by_edge else None,
        replacement=replacement,
    )


def exact() -> np.ndarray:
    """Sums over all in-neighbours of the seeds."""
    spans = (slice(*GRAPH.indptr[v : v + 2]) for v in SEEDS)
    return np.array([VALUES[GRAPH.indices[span]].sum() for span in spans])


def sums(batch: Batch, block: Block) -> np.ndarray:
    """The same, estimated by a block with its weights."""
    targets = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
    entries = VALUES[batch.input_nodes[block.indices]]
    if block.edge_weights is not None:
        entries = entries * block.edge_weights
    found = np.bincount(targets, weights=entries, minlength=block.num_dst)
    return found * block.weights_of_rows()


def worst(name: str, flaw: str = "") -> tuple[float, float]:
    """Largest error of a mean over draws in standard errors, and the rows' mean relative error."""
    drawn, of = [], sampler(name)
    for step in range(DRAWS):
        batch = of.sample(SEEDS, 0, step)
        [block] = batch.blocks
        if flaw == "no weights":
            block = dataclasses.replace(block, row_weights=None, edge_weights=None)
        elif flaw == "as with replacement":
            block = dataclasses.replace(block, edge_weights=flawed(batch, block))
        drawn.append(sums(batch, block))
    off = np.mean(drawn, 0) - exact()
    spread = np.std(drawn, 0, ddof=1) / np.sqrt(DRAWS) + 1e-12
    return float(np.abs(off / spread).max()), float(np.abs(off).sum() / exact().sum())


def flawed(batch: Batch, block: Block) -> np.ndarray:
    """Weights 1 / (k p), although no neighbour is drawn twice: a bug of published samplers."""
    weights = np.ones(block.num_edges)
    for i, (start, stop) in enumerate(pairwise(block.indptr)):
        near = GRAPH.indices[slice(*GRAPH.indptr[SEEDS[i] : SEEDS[i] + 2])]
        if stop - start < len(near):
            own = BY_DEGREE[batch.input_nodes[block.indices[start:stop]]]
            weights[start:stop] = BY_DEGREE[near].sum() / ((stop - start) * own)
    return weights


@pytest.mark.parametrize("name", KINDS)
def test_sums_over_drawn_neighbours_are_unbiased(name: str) -> None:
    """SA-S5."""
    errors, off = worst(name)
    assert errors < 5
    assert off < 0.01


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("weighted", "no weights"),
        ("edges", "no weights"),
        ("weighted, again", "no weights"),
        ("weighted", "as with replacement"),
    ],
)
def test_the_unbiasedness_test_catches_known_flaws(name: str, flaw: str) -> None:
    """Favoured neighbours without weights; weights 1 / (k p) where no neighbour is drawn twice."""
    errors, off = worst(name, flaw)
    assert errors > 6
    assert off > 0.01


def test_draws_without_replacement_are_distinct_edges_of_the_right_number() -> None:
    """SA-S1."""
    batch = sampler("weighted", (3, 4)).sample(SEEDS, 0, 0)
    for block, fanout in zip(batch.blocks, (4, 3), strict=True):
        for i, (start, stop) in enumerate(pairwise(block.indptr)):
            vertex = batch.input_nodes[i]
            near = GRAPH.indices[slice(*GRAPH.indptr[vertex : vertex + 2])].tolist()
            found = batch.input_nodes[block.indices[start:stop]].tolist()
            assert len(found) == len(set(found)) == min(fanout, len(near))
            assert set(found) <= set(near)


@pytest.mark.parametrize("name", ["weighted, again", "edges, again"])
def test_draws_with_replacement_are_as_many_as_the_fanout_and_in_proportion(name: str) -> None:
    """Over many draws a neighbour comes k w / W times a draw."""
    vertex = int(np.argmax(GRAPH.in_degrees()))
    own = slice(*GRAPH.indptr[vertex : vertex + 2])
    near = GRAPH.indices[own]
    of, counts = sampler(name, (3,)), np.zeros(60)
    for step in range(DRAWS):
        batch = of.sample(np.array([vertex]), 0, step)
        assert batch.blocks[0].num_edges == 3
        counts += np.bincount(batch.input_nodes[batch.blocks[0].indices], minlength=60)
    weights = BY_EDGE[own] if name.startswith("edges") else BY_DEGREE[near]
    chance = weights / weights.sum()
    error = np.abs(counts[near] / (3 * DRAWS) - chance)
    assert (error < 5 * np.sqrt(chance * (1 - chance) / (3 * DRAWS))).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_fanout_of_minus_one_takes_every_neighbour_once(name: str) -> None:
    batch = sampler(name, (-1,)).sample(SEEDS, 0, 0)
    np.testing.assert_allclose(sums(batch, batch.blocks[0]), exact())
    assert np.array_equal(np.diff(batch.blocks[0].indptr), GRAPH.in_degrees()[SEEDS])


@pytest.mark.parametrize("name", KINDS)
def test_batches_do_not_depend_on_threads_or_ranks(name: str) -> None:
    """SA-S3: edges and weights of a destination are the same on whichever rank draws them."""
    seeds = np.arange(60)
    whole = sampler(name).sample(seeds, 1, 2).blocks[0]
    again = sampler(name, threads=3).sample(seeds, 1, 2).blocks[0]
    assert np.array_equal(whole.indices, again.indices)
    parts = [sampler(name).sample(split_seeds(seeds, 3, rank), 1, 2) for rank in range(3)]
    ids = np.concatenate([part.input_nodes[part.blocks[0].indices] for part in parts])
    assert np.array_equal(ids, sampler(name).sample(seeds, 1, 2).input_nodes[whole.indices])
    if whole.edge_weights is not None:
        found = np.concatenate([part.blocks[0].edge_weights for part in parts])
        assert np.array_equal(found, whole.edge_weights)


def test_plain_draws_are_those_of_neighbour_sampling() -> None:
    plain = WeightedSampler(GRAPH.indptr, GRAPH.indices, (3, 2), 7)
    other = NeighbourSampler(GRAPH.indptr, GRAPH.indices, (3, 2), 7)
    found, wanted = (of.sample(SEEDS, 0, 1) for of in (plain, other))
    assert np.array_equal(found.input_nodes, wanted.input_nodes)
    assert found.blocks[0].edge_weights is None


def test_a_weight_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        WeightedSampler(GRAPH.indptr, GRAPH.indices, (3,), 7, weights=np.zeros(60))


@pytest.mark.parametrize("by_degree", [False, True])
@pytest.mark.parametrize("replacement", [False, True])
def test_sizes_are_estimated_from_degrees(by_degree: bool, replacement: bool) -> None:
    """Within a tenth of drawn ones, on a block graph with hubs."""
    graph = planted_partition(4000, 10, 8, 5, seed=1, homophily=0.6)
    known = profile(graph)
    of = WeightedSampler(
        graph.indptr,
        graph.indices,
        (5, 4),
        7,
        weights=np.maximum(graph.out_degrees(), 1.0) if by_degree else None,
        replacement=replacement,
    )
    trains = graph.train_nodes()
    drawn = [
        of.sample(np.random.default_rng(step).choice(trains, 100, replace=False), 0, step)
        for step in range(20)
    ]
    vertices = np.mean([batch.sizes[0] for batch in drawn], 0)
    edges = np.mean([batch.sizes[1] for batch in drawn], 0)
    found = drawn_frontier(
        *known.histogram(),
        known.num_train,
        (5, 4),
        100,
        by_degree=by_degree,
        replacement=replacement,
    )
    np.testing.assert_allclose(found[0], vertices, rtol=0.1)
    np.testing.assert_allclose(found[1], edges, rtol=0.1)
    assert found[2] == pytest.approx(np.mean([b.scanned for b in drawn]), rel=0.1)
