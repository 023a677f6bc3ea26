"""LABOR and LADIES: SA-S1, S3, S7 and S8 on a graph of 60 vertices with hubs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.data import keys
from gnnbench.data import ladies_loops as loops
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.labor import LaborSampler
from gnnbench.data.ladies import LadiesSampler
from gnnbench.data.sampling import Batch, Block, NeighbourSampler, split_seeds
from gnnbench.models.names import MODELS
from gnnbench.models.scales import vertex_scales

GCN, SAGE = MODELS.get("gcn"), MODELS.get("sage")
GRAPH = planted_partition(60, 8, 3, 2, seed=4)
SEEDS = np.arange(0, 60, 4)
VALUES = 1.0 + np.random.default_rng(0).random(60)
SCALES = vertex_scales(GRAPH, GCN)
COLUMNS = np.ones(60) if SCALES[1] is None else SCALES[1]
DRAWS = 3000


def labor(fanouts: tuple[int, ...], graph: Graph = GRAPH, **options: Any) -> LaborSampler:
    return LaborSampler(graph.indptr, graph.indices, fanouts, seed=7, **options)


def ladies(
    vertices: int, layers: int = 1, graph: Graph = GRAPH, model: Any = GCN, **options: Any
) -> LadiesSampler:
    scales = vertex_scales(graph, model)
    return LadiesSampler(
        graph.indptr, graph.indices, scales, vertices=vertices, layers=layers, seed=7, **options
    )


def exact_rows(values: np.ndarray) -> np.ndarray:
    """Rows of Â x of the seeds, without their own terms."""
    rows = [GRAPH.indices[GRAPH.indptr[v] : GRAPH.indptr[v + 1]] for v in SEEDS]
    scaled = COLUMNS * values
    return np.array([SCALES[0][v] * scaled[u].sum() for v, u in zip(SEEDS, rows, strict=True)])


def exact() -> np.ndarray:
    return exact_rows(VALUES)


def sums(batch: Batch, block: Block) -> np.ndarray:
    """The same, estimated by a block with its weights."""
    targets = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
    sources = batch.input_nodes[block.indices]
    entries = COLUMNS[sources] * VALUES[sources]
    if block.column_weights is not None:
        entries = entries * block.column_weights[block.indices]
    found = np.bincount(targets, weights=entries, minlength=block.num_dst)
    return found * block.weights_of_rows() * SCALES[0][batch.input_nodes[: block.num_dst]]


def errors(estimate: Callable[[int], np.ndarray]) -> tuple[float, float]:
    """Largest error of a mean over draws in standard errors, and the rows' mean relative error."""
    drawn = np.array([estimate(step) for step in range(DRAWS)])
    off = drawn.mean(0) - exact()
    spread = drawn.std(0, ddof=1) / np.sqrt(DRAWS) + 1e-12
    return float(np.abs(off / spread).max()), float(np.abs(off).sum() / exact().sum())


def picked(batch: Batch, block: Block) -> dict[int, set[int]]:
    ids = batch.input_nodes
    return {
        int(ids[i]): set(ids[block.indices[block.indptr[i] : block.indptr[i + 1]]].tolist())
        for i in range(block.num_dst)
    }


# LABOR


def test_labor_estimates_sums_without_bias() -> None:
    """SA-S8. Power: weights degree / picks (a Hájek estimate, zero where nothing is drawn) fail."""

    def drawn(step: int) -> np.ndarray:
        batch = labor((3,)).sample(SEEDS, 0, step)
        return sums(batch, batch.blocks[0])

    def flawed(step: int) -> np.ndarray:
        batch = labor((3,)).sample(SEEDS, 0, step)
        return sums(batch, dataclasses.replace(batch.blocks[0], row_weights=None))

    worst, off = errors(drawn)
    assert worst < 5
    assert off < 0.01
    worst, off = errors(flawed)
    assert worst > 6
    assert off > 0.015


def test_labor_has_as_many_edges_as_neighbour_sampling_in_the_mean_and_fewer_vertices() -> None:
    """SA-S8."""
    sizes = np.array(
        [
            [*labor((3,)).sizes(SEEDS, 0, s)[0][:1], *labor((3,)).sizes(SEEDS, 0, s)[1]]
            for s in range(400)
        ]
    )
    other = NeighbourSampler(GRAPH.indptr, GRAPH.indices, (3,), seed=7)
    plain = np.array(
        [[other.sizes(SEEDS, 0, s)[0][0], other.sizes(SEEDS, 0, s)[1][0]] for s in range(400)]
    )
    wanted = np.minimum(GRAPH.in_degrees()[SEEDS], 3).sum()
    assert plain[:, 1].mean() == wanted
    assert abs(sizes[:, 1].mean() - wanted) < 5 * sizes[:, 1].std() / 20
    assert sizes[:, 0].mean() < 0.97 * plain[:, 0].mean()


def test_labor_shares_a_number_per_source_among_destinations_and_ranks() -> None:
    """SA-S8: a source is kept by a destination exactly if r_u < fan-out / degree."""
    key = keys.fold(7, 2, 3, 0)
    r = keys.unit(keys.extend_array(key, np.arange(60)))
    for rank in range(3):
        batch = labor((3,)).sample(split_seeds(SEEDS, 3, rank), 2, 3)
        for v, sources in picked(batch, batch.blocks[0]).items():
            near = GRAPH.indices[GRAPH.indptr[v] : GRAPH.indptr[v + 1]]
            assert sources == set(near[r[near] < 3 / len(near)].tolist())


def test_labor_with_dependent_layers_draws_the_same_neighbours_in_every_hop() -> None:
    batch = labor((3, 3), layer_dependency=True).sample(SEEDS, 0, 0)
    first, last = (picked(batch, block) for block in batch.blocks)
    assert all(first[v] == sources for v, sources in last.items())
    batch = labor((3, 3)).sample(SEEDS, 0, 0)
    first, last = (picked(batch, block) for block in batch.blocks)
    assert any(first[v] != sources for v, sources in last.items())


@pytest.mark.parametrize("fanout", [-1, 60])
def test_labor_with_a_fanout_beyond_all_degrees_takes_all(fanout: int) -> None:
    """SA-S8."""
    batch = labor((fanout,)).sample(SEEDS, 0, 0)
    assert np.array_equal(np.diff(batch.blocks[0].indptr), GRAPH.in_degrees()[SEEDS])
    np.testing.assert_allclose(sums(batch, batch.blocks[0]), exact())


# LADIES


@pytest.mark.parametrize("poisson", [False, True])
def test_ladies_estimates_sums_without_bias(poisson: bool) -> None:
    """SA-S7. Power: the flaws of the published code are 14 standard errors and more off (below)."""
    sampler = ladies(12, poisson=poisson)

    def drawn(step: int) -> np.ndarray:
        batch = sampler.part(SEEDS, SEEDS, 0, step)
        return sums(batch, batch.blocks[0])

    worst, off = errors(drawn)
    assert worst < 5
    assert off < 0.02


def test_ladies_estimates_means_without_bias_when_it_draws_edges() -> None:
    """SA-S7. Power: weights that are cut off at their median fail."""
    sampler, rows = ladies(12, model=SAGE), vertex_scales(GRAPH, SAGE)[0]
    assert sampler.by_edges
    near = [GRAPH.indices[GRAPH.indptr[v] : GRAPH.indptr[v + 1]] for v in SEEDS]
    truth = np.array([rows[v] * VALUES[u].sum() for v, u in zip(SEEDS, near, strict=True)])

    def off(flawed: bool) -> float:
        drawn = []
        for step in range(DRAWS):
            batch = sampler.part(SEEDS, SEEDS, 0, step)
            block, entries = batch.blocks[0], VALUES[batch.input_nodes]
            assert block.column_weights is not None
            weights = block.column_weights
            if flawed:
                weights = np.where(weights > 0, np.minimum(weights, np.median(weights)), 0)
            targets = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
            found = (entries * weights[: len(entries)])[block.indices]
            drawn.append(np.bincount(targets, found, block.num_dst) * rows[SEEDS])
        spread = np.std(drawn, axis=0, ddof=1) / np.sqrt(DRAWS) + 1e-12
        return float(np.abs((np.mean(drawn, axis=0) - truth) / spread).max())

    assert off(False) < 5
    assert off(True) > 10


def test_edges_hit_columns_in_proportion_to_their_norms() -> None:
    """SA-S7: chi-square of how often each candidate is drawn, against its share of the norms."""
    sampler = ladies(50, model=SAGE)
    candidates, norms, edges = sampler.near(SEEDS)
    expected, counts = np.zeros(60), np.zeros(60)
    expected[candidates] = norms / norms.sum() * 50 * 400
    for step in range(400):
        sources, times, total = sampler._edges_drawn(SEEDS, keys.fold(1, step))
        sampler._drawn[sources] = -1
        counts[sources] += times
        assert total == norms.sum() and times.sum() == 50
    known = expected > 0
    assert not counts[~known].any() and edges == GRAPH.in_degrees()[SEEDS].sum()
    statistic = ((counts - expected)[known] ** 2 / expected[known]).sum()
    freedom = known.sum() - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_candidates_are_hit_as_a_search_in_their_running_sums_finds_them() -> None:
    """A guide only shortens the search. Norms differ by six orders of magnitude."""
    norms = np.exp(np.random.default_rng(3).uniform(-7, 7, 500))
    ends, firsts = np.empty(500), np.empty(501, np.int32)
    loops.guide(norms, ends, firsts)
    hits = np.empty(5000, np.int32)
    loops.spin(np.uint64(11), ends, firsts, hits, 0, 5000)
    assert np.array_equal(ends, np.cumsum(norms))
    points = keys.unit(keys.extend_array(11, np.arange(5000))) * ends[-1]
    assert np.array_equal(hits, np.searchsorted(ends, points, side="right"))


def test_norms_that_nobody_could_read_hit_the_last_candidate() -> None:
    """Conformance runs on a device without values: gathered norms are zeros."""
    ends, firsts, hits = np.empty(9), np.empty(10, np.int32), np.empty(5, np.int32)
    loops.guide(np.zeros(9), ends, firsts)
    loops.spin(np.uint64(1), ends, firsts, hits, 0, 5)
    assert hits.tolist() == [8] * 5


def test_rows_without_edges_are_never_hit_and_no_edges_draw_nothing() -> None:
    graph = from_edges("g", np.array([1, 2]), np.array([0, 0]), 5, undirected=False)
    batch = ladies(7, 2, graph, SAGE).part(np.array([3, 0, 4]), np.array([3, 0, 4]), 0, 0)
    assert set(batch.input_nodes.tolist()) <= {0, 1, 2, 3, 4}
    assert 1 <= batch.blocks[-1].num_edges <= 2
    empty = ladies(7, 2, graph, SAGE).part(np.array([3, 4]), np.array([3, 4]), 0, 0)
    assert empty.sizes == ((2, 2, 2), (0, 0))


class Flawed(LadiesSampler):
    """Draws without replacement, with the weights 1 / (k p) of draws with replacement."""

    def _pick(self, candidates: Any, norms: Any, key: int) -> Any:
        p = norms / norms.sum()
        count = min(self.vertices, len(candidates))
        rng = np.random.default_rng(key)
        kept = np.sort(rng.choice(len(candidates), count, replace=False, p=p))
        return candidates[kept], 1 / (count * p[kept])


@pytest.mark.parametrize("normalises", [False, True])
def test_the_unbiasedness_test_catches_the_flaws_of_the_published_code(normalises: bool) -> None:
    """SA-S7: no replacement; or rows divided by their sum of weights, times their true row sum."""
    kind = LadiesSampler if normalises else Flawed
    sampler = kind(GRAPH.indptr, GRAPH.indices, SCALES, vertices=12, layers=1, seed=7)
    whole = exact_rows(np.ones(60))

    def drawn(step: int) -> np.ndarray:
        batch = sampler.part(SEEDS, SEEDS, 0, step)
        block = batch.blocks[0]
        found = sums(batch, block)
        if not normalises:
            return found
        assert block.column_weights is not None
        targets = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
        weights = (COLUMNS[batch.input_nodes] * block.column_weights)[block.indices]
        total = np.bincount(targets, weights=weights, minlength=block.num_dst)
        total *= SCALES[0][SEEDS]
        return np.divide(found * whole, total, out=np.zeros(len(found)), where=total > 0)

    worst, off = errors(drawn)
    assert worst > 10
    assert off > 0.04


def test_ladies_draws_neighbours_of_the_layer_above_and_no_more_than_k() -> None:
    """SA-S7."""
    batch = ladies(9, layers=2).part(SEEDS, SEEDS, 0, 0)
    for block in batch.blocks:
        near = {
            int(u)
            for v in batch.input_nodes[: block.num_dst]
            for u in GRAPH.indices[GRAPH.indptr[v] : GRAPH.indptr[v + 1]]
        }
        drawn = set().union(*picked(batch, block).values())
        assert drawn <= near
        assert 0 < len(drawn) <= 9
        assert block.num_src <= block.num_dst + 9


@pytest.mark.parametrize("poisson", [False, True])
def test_ladies_draws_the_same_layers_however_many_ranks_look_for_candidates(
    poisson: bool,
) -> None:
    """SA-S3: bit for bit, as norms are integers; every edge is looked at by one rank."""
    alone = ladies(300, 2, BIG, poisson=poisson).part(BIG_SEEDS, BIG_SEEDS, 1, 2)
    for ranks in (2, 5):
        parts = [
            ladies(300, 2, BIG, poisson=poisson).part(
                BIG_SEEDS, BIG_SEEDS, 1, 2, ranks=ranks, rank=rank
            )
            for rank in range(ranks)
        ]
        for part in parts:
            assert np.array_equal(part.input_nodes, alone.input_nodes)
            assert weighted(part) == weighted(alone)
        looked = sum(near.edges for part in parts for near in part.near)
        # A rank that is alone looks at these edges, and at those of its blocks' rows.
        assert parts[0].scanned + looked == alone.scanned
        rows = np.array([[near.rows for near in part.near] for part in parts])
        assert rows.sum(0).tolist() == [len(BIG_SEEDS), alone.blocks[0].num_dst]
        assert np.ptp(rows, axis=0).max() <= 1


def test_edges_are_drawn_alike_however_many_ranks_look_for_candidates() -> None:
    """SA-S3: bit for bit. A rank that is alone looks at an edge once, others twice."""
    alone = ladies(300, 2, BIG, SAGE).part(BIG_SEEDS, BIG_SEEDS, 1, 2)
    assert alone.scanned == sum(int(block.degrees.sum()) for block in alone.blocks)
    half = ladies(300, 2, BIG, SAGE)
    half.part(BIG_SEEDS, BIG_SEEDS, 1, 2)
    own = half.part(BIG_SEEDS, BIG_SEEDS[:70], 1, 2)
    assert own.scanned == alone.scanned + sum(int(block.degrees.sum()) for block in own.blocks)
    for ranks in (2, 5):
        for rank in range(ranks):
            part = ladies(300, 2, BIG, SAGE).part(
                BIG_SEEDS, BIG_SEEDS, 1, 2, ranks=ranks, rank=rank
            )
            assert set(part.input_nodes.tolist()) == set(alone.input_nodes.tolist())
            assert weighted(part) == weighted(alone)


def test_a_batch_of_ladies_does_not_depend_on_the_batches_before_it() -> None:
    for options in ({"model": SAGE}, {}, {"poisson": True}):
        used, fresh = ladies(300, 2, BIG, **options), ladies(300, 2, BIG, **options)
        for step in range(4):
            used.part(BIG_SEEDS[step:], BIG_SEEDS[step : 300 * step], 0, step)
        a, b = (one.part(BIG_SEEDS, BIG_SEEDS[:99], 1, 2) for one in (used, fresh))
        assert np.array_equal(a.input_nodes, b.input_nodes)
        assert weighted(a) == weighted(b)


def test_poisson_draws_expect_k_vertices_and_all_of_them_make_the_exact_product() -> None:
    """SA-S7."""
    sampler = ladies(12, poisson=True)
    counts = [len(sampler.layers_of(SEEDS, 0, step)[0].vertices) for step in range(1000)]
    assert abs(np.mean(counts) - 12) < 5 * np.std(counts) / np.sqrt(1000)
    whole = ladies(10**9, poisson=True).part(SEEDS, SEEDS, 0, 0)
    np.testing.assert_allclose(sums(whole, whole.blocks[0]), exact())


# Both


BIG = planted_partition(4000, 8, 3, 2, seed=5)
BIG_SEEDS = np.arange(0, 4000, 2)
SAMPLERS: dict[str, Callable[..., Any]] = {
    "labor": lambda **o: labor((3, 2), BIG, **o),
    "ladies": lambda **o: ladies(300, 2, BIG, **o),
    "edges": lambda **o: ladies(300, 2, BIG, SAGE, **o),
    "poisson": lambda **o: ladies(300, 2, BIG, poisson=True, **o),
}


def weighted(batch: Batch) -> list[dict[tuple[int, int], float]]:
    """Per layer, edges by graph ids with their weights."""
    found = []
    for block in batch.blocks:
        rows = np.repeat(np.arange(block.num_dst), np.diff(block.indptr))
        weights = block.weights_of_rows()[rows]
        if block.column_weights is not None:
            weights = weights * block.column_weights[block.indices]
        ids = batch.input_nodes
        pairs = zip(ids[rows].tolist(), ids[block.indices].tolist(), strict=True)
        found.append(dict(zip(pairs, weights.tolist(), strict=True)))
    return found


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("world_size", [2, 5])
def test_the_parts_of_ranks_make_up_the_batch_of_one(name: str, world_size: int) -> None:
    """SA-S3, SA-P1: same edges and weights on whichever rank, and no other vertices."""
    whole = SAMPLERS[name]().part(BIG_SEEDS, BIG_SEEDS, 1, 2)
    met: list[dict[tuple[int, int], float]] = [{}, {}]
    inputs: set[int] = set()
    for rank in range(world_size):
        mine = split_seeds(BIG_SEEDS, world_size, rank)
        part = SAMPLERS[name]().part(BIG_SEEDS, mine, 1, 2)
        inputs |= set(part.input_nodes.tolist())
        for held, found in zip(met, weighted(part), strict=True):
            held.update(found)
    assert met == weighted(whole)
    assert inputs == set(whole.input_nodes.tolist())


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_does_not_depend_on_threads(name: str) -> None:
    one, three = (SAMPLERS[name](threads=t).part(BIG_SEEDS, BIG_SEEDS, 1, 2) for t in (1, 3))
    assert np.array_equal(one.input_nodes, three.input_nodes)
    assert weighted(one) == weighted(three)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_seeds_make_empty_blocks(name: str) -> None:
    empty = np.empty(0, np.int64)
    assert SAMPLERS[name]().part(empty, empty, 0, 0).sizes == ((0, 0, 0), (0, 0))
