"""Cluster-GCN and GraphSAINT: SA-S3, S4, S9 and S10 on graphs of 60 to 3,000 vertices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gnnbench.data.dealing import Dealt, Source
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.partition import partition
from gnnbench.data.saint import (
    NodeSampler,
    SaintSource,
    VertexSampler,
    WalkSampler,
    WholeGraph,
    presampled,
    split_counts,
)
from gnnbench.data.subgraphs import ClusterSource, Inducer

GRAPH = planted_partition(60, 6, 3, 2, seed=4)
DRAWS = 1500


def edges_of(graph: Graph) -> set[tuple[int, int]]:
    """(target, source) of every stored edge."""
    targets = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return set(zip(targets.tolist(), graph.indices.tolist(), strict=True))


def pairs(dealt: Dealt) -> list[tuple[int, int]]:
    [block] = dealt.batch.blocks
    ids = dealt.batch.input_nodes
    targets = np.repeat(ids, np.diff(block.indptr))
    return list(zip(targets.tolist(), ids[block.indices].tolist(), strict=True))


def clusters(merged: int = 2, subgraphs: int = 1, count: int = 7) -> ClusterSource:
    parts = partition(GRAPH, count, objective="cut")
    return ClusterSource(GRAPH, parts, count=count, merged=merged, subgraphs=subgraphs, seed=3)


# Cluster-GCN


@pytest.mark.parametrize(("merged", "subgraphs", "ranks"), [(2, 1, 1), (2, 3, 2), (3, 2, 3)])
def test_an_epoch_covers_every_training_vertex_once(
    merged: int, subgraphs: int, ranks: int
) -> None:
    """SA-S4: also with a last batch that has fewer clusters, or none for some ranks."""
    source = clusters(merged, subgraphs)
    met: list[int] = []
    shares = 0.0
    for step in range(source.steps):
        parts = [source.draw(1, step, ranks, rank) for rank in range(ranks)]
        for dealt in parts:
            assert dealt.rows is not None
            met += dealt.outputs[dealt.rows].tolist()
        counted = sum(dealt.num_rows for dealt in parts)
        assert {dealt.scale for dealt in parts} == {1 / counted}
        shares += parts[0].share
    assert sorted(met) == GRAPH.train_nodes().tolist()
    assert shares == pytest.approx(1)


def test_a_subgraph_has_all_edges_between_its_vertices() -> None:
    """SA-S9: those between its clusters too."""
    source, parts = clusters(3), partition(GRAPH, 7, objective="cut")
    between = 0
    for step in range(source.steps):
        dealt = source.draw(0, step, 1, 0)
        inside = set(dealt.outputs.tolist())
        wanted = {(v, u) for v, u in edges_of(GRAPH) if v in inside and u in inside}
        found = pairs(dealt)
        assert len(found) == len(set(found))
        assert set(found) == wanted
        assert (
            dealt.batch.blocks[0].degrees.tolist() == np.diff(dealt.batch.blocks[0].indptr).tolist()
        )
        between += sum(parts[v] != parts[u] for v, u in found)
    assert between > 0


def test_all_clusters_in_one_batch_are_the_graph() -> None:
    """SA-S9."""
    source = clusters(merged=7)
    dealt = source.draw(0, 0, 1, 0)
    assert source.steps == 1
    assert dealt.outputs.tolist() == list(range(60))
    assert set(pairs(dealt)) == edges_of(GRAPH)


def test_clusters_are_merged_anew_in_each_epoch() -> None:
    first, second = (clusters().groups(epoch, 0)[0].tolist() for epoch in (0, 1))
    assert first != second


# GraphSAINT

SAMPLERS: dict[str, Callable[[Graph], VertexSampler]] = {
    "node": lambda g: NodeSampler(g, 18),
    "edge": lambda g: WalkSampler(g, 8, 1, edges=True),
    "walk": lambda g: WalkSampler(g, 5, 3),
}


def saint(
    name: str = "walk", *, graph: Graph = GRAPH, coverage: int = 4000, subgraphs: int = 1
) -> SaintSource:
    sampler = WholeGraph(graph) if name == "whole" else SAMPLERS[name](graph)
    counts = presampled(graph, sampler, coverage, 7)
    return SaintSource(graph, sampler, counts, steps=3, subgraphs=subgraphs, seed=7)


def bias(source: SaintSource, *, by_source: bool = False) -> tuple[float, float]:
    """Of sums over in-neighbours: largest z of a vertex, and the mean relative error.

    With `by_source` the weights are C_u / C_uv, u the source, as in code that takes counts of the
    first row of an edge index.
    """
    values = 1 + np.random.default_rng(0).random(60)
    rows: dict[int, list[float]] = {v: [] for v in range(60)}
    for step in range(DRAWS):
        dealt = source.draw(0, step, 1, 0)
        ids, [block] = dealt.batch.input_nodes, dealt.batch.blocks
        targets = np.repeat(np.arange(len(ids)), np.diff(block.indptr))
        weights = block.edge_weights
        assert weights is not None
        if by_source:
            seen = source.of_vertex[ids]
            weights = weights * seen[block.indices] / seen[targets]
        found = np.bincount(
            targets, weights=weights * values[ids[block.indices]], minlength=len(ids)
        )
        for v, value in zip(ids.tolist(), found.tolist(), strict=True):
            rows[v].append(value)
    worst = off = whole = 0.0
    for v, drawn in rows.items():
        if not drawn:  # a vertex without edges, which the edge sampler never meets
            assert GRAPH.in_degrees()[v] == 0
            continue
        exact = values[GRAPH.indices[GRAPH.indptr[v] : GRAPH.indptr[v + 1]]].sum()
        error = abs(np.mean(drawn) - exact)
        worst = max(worst, error / (np.std(drawn) / np.sqrt(len(drawn)) + 1e-9))
        off, whole = off + error, whole + exact
    return float(worst), float(off / whole)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sums_normalised_by_target_counts_are_unbiased_and_by_source_counts_are_not(
    name: str,
) -> None:
    """SA-S10. Power: source counts are 20 % and more off where target counts are within 4 %."""
    source = saint(name)
    worst, off = bias(source)
    assert worst < 5
    assert off < 0.04
    worst, off = bias(source, by_source=True)
    assert worst > 20
    assert off > 0.2


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_loss_of_a_batch_has_the_full_mean_loss_as_its_mean(name: str) -> None:
    """SA-S10. Power: a plain mean over a batch's training vertices is over 10 errors off."""
    # A loss that is large where a vertex is often sampled, so that a plain mean shows.
    source = saint(name, subgraphs=2)
    losses = 1.0 + GRAPH.in_degrees()
    trains = GRAPH.train_nodes()
    found, plain = [], []
    for step in range(DRAWS):
        dealt = source.draw(0, step, 1, 0)
        assert dealt.rows is not None and dealt.weights is not None
        each = losses[dealt.outputs[dealt.rows]]
        found.append(dealt.scale * (dealt.weights * each).sum())
        plain.append(each.mean())
    error = np.std(found) / np.sqrt(DRAWS)
    assert abs(np.mean(found) - losses[trains].mean()) < 5 * error
    assert abs(np.mean(plain) - losses[trains].mean()) > 10 * np.std(plain) / np.sqrt(DRAWS)


def test_sampling_every_vertex_gives_weights_of_one_and_the_plain_mean_loss() -> None:
    """SA-S10."""
    dealt = saint("whole", coverage=3).draw(0, 0, 1, 0)
    [block] = dealt.batch.blocks
    assert dealt.weights is not None and block.edge_weights is not None
    assert set(block.edge_weights) == {1.0}
    np.testing.assert_allclose(dealt.weights * dealt.scale, 1 / GRAPH.num_train)


def test_counts_are_those_of_the_subgraphs_sampled_beforehand() -> None:
    sampler = SAMPLERS["walk"](GRAPH)
    rounds, of_vertex, of_edge = split_counts(presampled(GRAPH, sampler, 20, 7), 60)
    assert of_vertex.sum() >= 20 * 60
    assert 0 < of_edge.max() <= of_vertex.max() <= rounds
    targets = np.repeat(np.arange(60), GRAPH.in_degrees())
    assert (of_edge <= np.minimum(of_vertex[targets], of_vertex[GRAPH.indices])).all()


def test_edges_are_drawn_in_proportion_to_the_inverse_degrees_of_both_ends() -> None:
    """One draw per subgraph on a path 0-1-2-3: the ends are a sixth more likely than the middle."""
    path = from_edges("path", np.arange(3), np.arange(1, 4), 5)
    sampler, counts = WalkSampler(path, 1, 1, edges=True), np.zeros(5)
    for key in range(6000):
        counts[sampler.vertices(key * 7919)] += 1
    # P(0-1) = P(2-3) = (1 + 1/2) / 4, P(1-2) = (1/2 + 1/2) / 4; vertex 4 has no edge.
    wanted = np.array([0.375, 0.625, 0.625, 0.375, 0])
    assert np.abs(counts / 6000 - wanted).max() < 5 * np.sqrt(0.25 / 6000)


# Both


@pytest.mark.parametrize("make", [lambda: clusters(2, 3), lambda: saint(coverage=5, subgraphs=4)])
@pytest.mark.parametrize("world_size", [2, 5])
def test_the_parts_of_ranks_make_up_the_batch_of_one(
    make: Callable[[], Source], world_size: int
) -> None:
    """SA-S3, SA-P1: a rank without a subgraph has an empty part."""
    whole = make().draw(1, 0, 1, 0)
    parts = [make().draw(1, 0, world_size, rank) for rank in range(world_size)]
    assert np.array_equal(np.concatenate([p.outputs for p in parts]), whole.outputs)
    assert [pair for part in parts for pair in pairs(part)] == pairs(whole)
    assert {(p.scale, p.share) for p in parts} == {(whole.scale, whole.share)}
    if whole.weights is not None:
        assert np.array_equal(np.concatenate([p.weights for p in parts]), whole.weights)


def test_an_induced_subgraph_does_not_depend_on_threads() -> None:
    big = planted_partition(3000, 8, 3, 2, seed=5)
    chosen = np.flatnonzero(np.arange(3000) % 5 < 3)
    one, three = (Inducer(big, threads).induced(chosen) for threads in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))
    assert np.array_equal(big.indices[one[2]], chosen[one[1]])
