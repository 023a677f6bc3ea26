"""Reuse distances: against exact stack distances, by parts, sampled, and kept with a graph."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from gnnbench.costs.facts import miss_rate
from gnnbench.data.formats import native
from gnnbench.data.generators import generate
from gnnbench.data.graph import from_edges
from gnnbench.data.orders import reordered
from gnnbench.data.reuse import reuse_shares
from gnnbench.reuse import BINS, DISTANCES, Reuse, stacked

KINDS = ("web", "grid", "stars", "bipartite", "uniform")


def exact_misses(indices: np.ndarray, rows: int) -> float:
    """Share of misses of an LRU cache of so many rows, the second time the reads are made."""
    cache: OrderedDict[int, None] = OrderedDict()
    missed = 0
    for turn in range(2):
        for column in indices.tolist():
            if column in cache:
                cache.move_to_end(column)
                continue
            missed += turn
            cache[column] = None
            if len(cache) > rows:
                cache.popitem(last=False)
    return missed / len(indices)


def share_beyond(shares: np.ndarray, rows: float) -> float:
    return float((shares * miss_rate(DISTANCES, rows, sharpness=6.0)).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [16, 128, 1024])
def test_shares_give_the_misses_of_a_cache(kind: str, rows: int) -> None:
    graph = generate(kind, num_nodes=4000, mean_degree=10, seed=1)
    shares = reuse_shares(graph.indptr, graph.indices)[0]
    assert shares.sum() == pytest.approx(1.0)
    assert share_beyond(shares, rows) == pytest.approx(exact_misses(graph.indices, rows), abs=0.08)


def test_two_reads_of_each_row_one_after_the_other_are_near() -> None:
    """Rows read columns (0, 1), (0, 1), (2, 3), (2, 3): half of the reads follow a row or two."""
    indptr, indices = np.array([0, 2, 4, 6, 8]), np.array([0, 1, 0, 1, 2, 3, 2, 3])
    shares = reuse_shares(indptr, indices)[0]
    assert shares[0] == pytest.approx(0.5)  # within three rows
    assert shares[1] == pytest.approx(0.5)  # first reads: four rows since the last epoch


def test_a_part_is_what_the_graph_of_its_rows_is() -> None:
    graph = generate("web", num_nodes=2000, mean_degree=8, seed=3)
    parts = np.arange(2000) % 2
    both = reuse_shares(graph.indptr, graph.indices, parts, 2)
    for part in (0, 1):
        rows = np.flatnonzero(parts == part)
        pieces = [graph.indices[graph.indptr[r] : graph.indptr[r + 1]] for r in rows]
        indptr = np.concatenate([[0], np.cumsum([len(p) for p in pieces])])
        alone = reuse_shares(indptr, np.concatenate(pieces), num_columns=2000)[0]
        assert both[part] == pytest.approx(alone)


def test_sampled_rows_give_nearly_the_same_shares() -> None:
    graph = generate("web", num_nodes=30_000, mean_degree=10, seed=2)
    whole = reuse_shares(graph.indptr, graph.indices)[0]
    some = reuse_shares(graph.indptr, graph.indices, most_reads=graph.num_edges // 7)[0]
    for rows in (32, 512, 8192):
        assert share_beyond(some, rows) == pytest.approx(share_beyond(whole, rows), abs=0.06)


def test_an_order_without_locality_reads_farther() -> None:
    given = generate("grid", num_nodes=10_000, mean_degree=8, seed=0)
    shuffled = reordered(given, "random")
    near, far = (share_beyond(g.reuse_of_rows().shares, 500) for g in (given, shuffled))
    assert near < 0.2 < 0.8 < far


def test_a_saved_graph_keeps_its_reuse_and_a_miniature_counts_its_own(tmp_path) -> None:  # type: ignore[no-untyped-def]
    graph = generate("web", num_nodes=500, mean_degree=6, num_features=3, num_classes=2, seed=1)
    saved = native.load(native.save(graph, tmp_path / "g"))
    assert saved.reuse and saved.reuse_of_rows() == graph.reuse_of_rows()
    assert saved.facts()["reuse"] == graph.facts()["reuse"]
    assert not saved.miniature(50).reuse


def test_a_graph_without_edges_has_a_reuse_too() -> None:
    graph = from_edges("none", np.zeros(0, int), np.zeros(0, int), 3)
    assert graph.reuse_of_rows().shares.sum() == pytest.approx(1.0)


def test_ranks_are_stacked_and_told_apart() -> None:
    one, two = (Reuse(np.eye(BINS)[k]) for k in (0, 5))
    both = stacked([one, two])
    assert both is not None and both.of_rank(1) == two
    assert stacked([one, one]) == one and stacked([one, None]) is None
    assert not Reuse.of(()).known and Reuse.unknown() == Reuse.unknown()


def test_a_cut_into_parts_brings_reads_together() -> None:
    far = Reuse(np.eye(BINS)[10])
    assert far.split(1) == far and far.split(4) == Reuse(np.eye(BINS)[8])
    assert Reuse(np.eye(BINS)[1]).split(8) == Reuse(np.eye(BINS)[0])
    assert Reuse(np.eye(BINS)[BINS - 1]).split(2).shares.sum() == 1
