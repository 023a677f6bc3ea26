"""Neighbour sampling: SA-S1 to SA-S5 on graphs small enough to check by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data import keys
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.sampling import (
    Batch,
    Block,
    NeighbourSampler,
    batch_seeds,
    epoch_seeds,
    split_seeds,
    steps,
)


def random_graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    # A hub (vertex 0) has more than 64 in-neighbours, which takes the bitmap's long way.
    src, dst = rng.integers(0, nodes, edges), rng.integers(0, nodes, edges)
    hub = np.arange(1, min(nodes, 150))
    return from_edges(
        "random", np.r_[src, hub], np.r_[dst, np.zeros_like(hub)], nodes, undirected=False
    )


GRAPH = random_graph(200, 1200)


def sampler(fanouts: list[int], graph: Graph = GRAPH, threads: int = 1) -> NeighbourSampler:
    return NeighbourSampler(graph.indptr, graph.indices, fanouts, seed=7, threads=threads)


def picked(batch: Batch, block: Block) -> dict[int, list[int]]:
    """Graph ids of the neighbours of every destination, in the order drawn."""
    ids = batch.input_nodes
    return {
        int(ids[i]): ids[block.indices[a:b]].tolist()
        for i, (a, b) in enumerate(pairwise(block.indptr))
    }


@given(
    st.lists(st.integers(0, 199), unique=True, max_size=30),
    st.lists(st.sampled_from([-1, 0, 1, 3, 70]), min_size=1, max_size=3),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_picks_are_distinct_edges_of_the_right_number(
    seeds: list[int], fanouts: list[int], step: int
) -> None:
    """SA-S1."""
    batch = sampler(fanouts).sample(np.array(seeds, np.int64), 0, step)
    for block, fanout in zip(batch.blocks, reversed(fanouts), strict=True):
        for i, (vertex, neighbours) in enumerate(picked(batch, block).items()):
            real = GRAPH.indices[GRAPH.indptr[vertex] : GRAPH.indptr[vertex + 1]].tolist()
            want = len(real) if fanout == -1 else min(fanout, len(real))
            assert len(neighbours) == len(set(neighbours)) == want
            assert set(neighbours) <= set(real)
            assert block.degrees[i] == len(real)


@given(st.lists(st.integers(0, 199), unique=True, max_size=20))
@settings(max_examples=30, deadline=None)
def test_local_numbers_go_by_first_appearance(seeds: list[int]) -> None:
    batch = sampler([4, 3]).sample(np.array(seeds, np.int64), 1, 2)
    order = dict.fromkeys(seeds)
    for block in reversed(batch.blocks):
        assert block.num_dst == len(order)
        order |= dict.fromkeys(v for row in picked(batch, block).values() for v in row)
        assert block.num_src == len(order)
    assert batch.input_nodes.tolist() == list(order)
    assert batch.sizes[0] == (len(order), *(b.num_dst for b in batch.blocks))


def test_a_fanout_of_minus_one_takes_the_neighbourhood_in_graph_order() -> None:
    """SA-S1."""
    batch = sampler([-1]).sample(np.array([0, 5]), 0, 0)
    for vertex, neighbours in picked(batch, batch.blocks[0]).items():
        real = GRAPH.indices[GRAPH.indptr[vertex] : GRAPH.indptr[vertex + 1]]
        assert neighbours == real.tolist()


@pytest.mark.parametrize(("degree", "fanout"), [(10, 3), (64, 5), (90, 30)])
def test_every_neighbour_is_picked_equally_often(degree: int, fanout: int) -> None:
    """SA-S2: chi-square of inclusion counts, within five standard errors of its mean."""
    star = from_edges(
        "star", np.arange(1, degree + 1), np.zeros(degree, int), degree + 1, undirected=False
    )
    draw, counts, trials = sampler([fanout], star), np.zeros(degree + 1), 4000
    for step in range(trials):
        counts[draw.sample(np.array([0]), 0, step).input_nodes[1:]] += 1
    p = fanout / degree
    # Counts are dependent (each draw has exactly `fanout`); this statistic's mean is degree - 1.
    statistic = ((counts[1:] - trials * p) ** 2).sum() / (trials * p * (1 - p)) * (1 - 1 / degree)
    assert abs(statistic - (degree - 1)) < 5 * np.sqrt(2 * (degree - 1))


def test_pairs_of_neighbours_are_picked_equally_often() -> None:
    """SA-S2: without replacement, all 10 pairs out of 5 are equally likely."""
    star = from_edges("star", np.arange(1, 6), np.zeros(5, int), 6, undirected=False)
    draw, trials, counts = sampler([2], star), 5000, {}
    for step in range(trials):
        pair = tuple(sorted(draw.sample(np.array([0]), 0, step).input_nodes[1:].tolist()))
        counts[pair] = counts.get(pair, 0) + 1
    spread = np.array(list(counts.values())) - trials / 10
    assert len(counts) == 10
    assert np.abs(spread).max() < 5 * np.sqrt(trials * 0.09)


def test_the_mean_over_samples_is_the_full_mean() -> None:
    """SA-S5: one layer is unbiased."""
    values = np.random.default_rng(1).normal(size=GRAPH.num_nodes)
    real = GRAPH.indices[GRAPH.indptr[0] : GRAPH.indptr[1]]
    draw = sampler([5])
    means = [
        values[draw.sample(np.array([0]), 0, step).input_nodes[1:]].mean() for step in range(3000)
    ]
    assert abs(np.mean(means) - values[real].mean()) < 5 * np.std(means) / np.sqrt(len(means))


def test_a_pick_is_the_key_of_its_counters() -> None:
    """SA-S3: the slot's draw can be recomputed from (seed, epoch, step, hop, vertex, slot)."""
    degree = 50
    star = from_edges("star", np.arange(1, 51), np.zeros(50, int), 51, undirected=False)
    batch = sampler([1], star).sample(np.array([0]), 3, 4)
    bits = keys.fold(7, 3, 4, 0, 0, 0)
    assert batch.input_nodes[1] == 1 + (bits >> 32) * degree // 2**32


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_draw_what_one_process_draws(world_size: int) -> None:
    """SA-S3: the neighbours of a vertex in a hop are the same on whichever rank meets it."""
    seeds = np.arange(0, 40, 2)
    whole = sampler([4, 3]).sample(seeds, 2, 1)
    expected = [picked(whole, block) for block in whole.blocks]
    met: list[set[int]] = [set(), set()]
    for rank in range(world_size):
        part = sampler([4, 3]).sample(split_seeds(seeds, world_size, rank), 2, 1)
        for layer, block in enumerate(part.blocks):
            for vertex, neighbours in picked(part, block).items():
                assert neighbours == expected[layer][vertex]
                met[layer].add(vertex)
    assert met == [set(e) for e in expected]


def test_threads_do_not_change_a_batch() -> None:
    """SA-S3."""
    graph = random_graph(5000, 40_000)
    seeds = np.arange(3000)
    one = sampler([5, 5], graph).sample(seeds, 0, 0)
    many = sampler([5, 5], graph, threads=3).sample(seeds, 0, 0)
    assert np.array_equal(one.input_nodes, many.input_nodes)
    for a, b in zip(one.blocks, many.blocks, strict=True):
        assert np.array_equal(a.indptr, b.indptr)
        assert np.array_equal(a.indices, b.indices)


def test_a_batch_does_not_depend_on_the_batches_before_it() -> None:
    used, fresh = sampler([4, 3]), sampler([4, 3]).twin()
    used.sample(np.arange(50), 0, 0)
    a, b = used.sample(np.array([9, 3]), 0, 1), fresh.sample(np.array([9, 3]), 0, 1)
    assert a.input_nodes.tolist() == b.input_nodes.tolist()
    assert a.blocks[0].indices.tolist() == b.blocks[0].indices.tolist()


def test_steps_epochs_and_hops_draw_differently() -> None:
    draw, seeds = sampler([3, 3]), np.arange(60)
    first = draw.sample(seeds, 0, 0)
    for epoch, step in [(0, 1), (1, 0)]:
        other = draw.sample(seeds, epoch, step)
        assert picked(other, other.blocks[1]) != picked(first, first.blocks[1])
    inner, outer = picked(first, first.blocks[0]), picked(first, first.blocks[1])
    assert any(inner[v] != outer[v] for v in outer)


def test_no_seeds_make_an_empty_batch() -> None:
    batch = sampler([4, 3]).sample(np.empty(0, np.int64), 0, 0)
    assert batch.sizes == ((0, 0, 0), (0, 0))
    assert [block.indptr.tolist() for block in batch.blocks] == [[0], [0]]


def test_isolated_vertices_and_edgeless_graphs_give_empty_rows() -> None:
    """SA-S2."""
    empty = from_edges("empty", np.empty(0, int), np.empty(0, int), 4)
    batch = sampler([2, -1], empty).sample(np.array([3, 1]), 0, 0)
    assert batch.sizes == ((2, 2, 2), (0, 0))
    assert batch.input_nodes.tolist() == [3, 1]


def test_wide_indices_sample_like_narrow_ones() -> None:
    wide = NeighbourSampler(GRAPH.indptr, GRAPH.indices.astype(np.int64), [4, 3], seed=7)
    a, b = wide.sample(np.arange(9), 0, 0), sampler([4, 3]).sample(np.arange(9), 0, 0)
    assert a.input_nodes.tolist() == b.input_nodes.tolist()
    assert a.blocks[0].indices.dtype == np.int32


def test_mapped_read_only_arrays_sample_like_those_in_memory(tmp_path: Path) -> None:
    for name in ("indptr", "indices"):
        np.save(tmp_path / f"{name}.npy", getattr(GRAPH, name))
    mapped = [np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in ("indptr", "indices")]
    a = NeighbourSampler(*mapped, [4, 3], seed=7).sample(np.arange(9), 0, 0)
    b = sampler([4, 3]).sample(np.arange(9), 0, 0)
    assert a.input_nodes.tolist() == b.input_nodes.tolist()


def test_a_fanout_below_minus_one_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        sampler([-2])


@given(st.lists(st.integers(0, 199), unique=True, max_size=20))
@settings(max_examples=30, deadline=None)
def test_a_transposed_block_holds_the_same_edges(seeds: list[int]) -> None:
    block = sampler([4, 3]).sample(np.array(seeds, np.int64), 0, 0).blocks[0]
    indptr_t, indices_t = block.transpose()
    forward = {
        (r, int(c)) for r, (a, b) in enumerate(pairwise(block.indptr)) for c in block.indices[a:b]
    }
    backward = {(int(r), c) for c, (a, b) in enumerate(pairwise(indptr_t)) for r in indices_t[a:b]}
    assert forward == backward
    assert len(indptr_t) == block.num_src + 1
    assert all((np.diff(indices_t[a:b]) > 0).all() for a, b in pairwise(indptr_t))


def test_the_order_of_a_transpose_is_that_of_a_stable_sort() -> None:
    block = sampler([4, 3]).sample(np.arange(0, 60, 2), 0, 0).blocks[0]
    assert np.array_equal(block.transposed_order(), np.argsort(block.indices, kind="stable"))


def test_only_vertices_with_more_neighbours_than_the_fanout_are_drawn_by_lot() -> None:
    batch = sampler([4, -1]).sample(np.arange(0, 60, 2), 0, 0)
    block = batch.blocks[-1]
    more = block.degrees > 4
    assert 0 < batch.by_lot == int(np.diff(block.indptr)[more].sum()) == 4 * int(more.sum())


def test_an_epoch_holds_every_training_vertex_once() -> None:
    """SA-S4: over all steps and ranks."""
    train = np.arange(0, 101, 3)
    order = epoch_seeds(train, seed=1, epoch=4)
    seen = [
        int(v)
        for step in range(steps(len(train), 10))
        for rank in range(4)
        for v in split_seeds(batch_seeds(order, 10, step), 4, rank)
    ]
    assert sorted(seen) == train.tolist()
    assert order.tolist() != epoch_seeds(train, seed=1, epoch=5).tolist()


def test_slices_are_even_and_may_be_empty() -> None:
    sizes = [len(split_seeds(np.arange(5), 7, rank)) for rank in range(7)]
    assert sizes == [1, 1, 1, 1, 1, 0, 0]
    assert [len(split_seeds(np.arange(11), 4, rank)) for rank in range(4)] == [3, 3, 3, 2]
