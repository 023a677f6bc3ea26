"""Draws of boundary rows: how many, which, alike on both sides; and the graph over what is kept."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.boundary import (
    Boundary,
    SampledAttention,
    SampledGraph,
    draw_boundary,
    drawn_rows,
    halo_edges,
)
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import halo_structure, transpose, with_self_loops


def random_graph(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, 40, (2, 160))
    return from_edges("random", *ends, 40, undirected=False)


@pytest.mark.parametrize(
    ("rate", "size", "rows"),
    [(0.29, 100, 29), (0.1, 30, 3), (0.1, 9, 0), (1.0, 7, 7), (0.0, 7, 0), (0.999, 1000, 999)],
)
def test_rows_drawn_are_the_floor_of_rate_times_size(rate: float, size: int, rows: int) -> None:
    """FG-32, also where binary fractions fall short: 0.29 * 100 < 29."""
    assert drawn_rows(rate, size) == rows


def test_every_row_is_drawn_as_often_as_any_other() -> None:
    """3 of 10, 4,000 epochs: 1,200 each, give or take five standard deviations of 29."""
    ids = np.arange(10, dtype=np.int64) * 1_000_003
    times = np.zeros(10, int)
    for epoch in range(4000):
        picks = draw_boundary(ids, 0.3, 1, epoch, 0, 1)
        assert sorted(set(picks.tolist())) == picks.tolist()
        times[picks] += 1
    assert np.abs(times - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)


def test_a_draw_depends_on_each_of_its_keys() -> None:
    """FG-34: the same keys give the same rows; another seed, epoch, owner or peer others."""
    ids = np.arange(200, dtype=np.int64)
    base = (1, 2, 3, 4)
    first = draw_boundary(ids, 0.5, *base).tolist()
    assert draw_boundary(ids, 0.5, *base).tolist() == first
    for place in range(4):
        keys = [k + (i == place) for i, k in enumerate(base)]
        assert draw_boundary(ids, 0.5, *keys).tolist() != first
    assert draw_boundary(ids, 0.5, 1, 2, 4, 3).tolist() != first


@settings(max_examples=30)
@given(seed=st.integers(0, 999), rate=st.floats(0, 1), world=st.integers(2, 5))
def test_owners_and_receivers_draw_the_same_rows(seed: int, rate: float, world: int) -> None:
    """FG-15, FG-32: what j draws for i is what i expects of j; every sent row is received."""
    graph = random_graph(seed)
    owner = (np.arange(40) * 7 % world).astype(np.int32)
    parts = halo_structure(graph, owner, world)
    boundaries = [Boundary.of(local) for local in parts.ranks]
    sent = {
        (j, int(i), int(v))
        for j, b in enumerate(boundaries)
        for p in b.draw_sent(rate, seed, 3)
        for i, v in [(np.searchsorted(b.send_offsets, p, "right") - 1, b.send[p])]
    }
    received = {
        (int(owner[b.halo[p]]), i, int(b.halo[p]))
        for i, b in enumerate(boundaries)
        for p in b.draw_received(rate, seed, 3)
    }
    assert sent == received
    assert len(sent) == sum(sum(b.taken(rate)) for b in boundaries)
    assert [b.given(rate) for b in boundaries] == list(
        map(list, zip(*(b.taken(rate) for b in boundaries), strict=True))
    )
    for b in boundaries:
        picks = b.draw_received(rate, seed, 3)
        assert b.find_received(b.halo[picks], b.taken(rate)).tolist() == picks.tolist()


@settings(max_examples=30)
@given(seed=st.integers(0, 999), rate=st.floats(0, 1))
def test_a_rebuilt_graph_is_the_local_graph_without_the_columns_left_out(
    seed: int, rate: float
) -> None:
    """Twice in a row, so that nothing of an earlier draw remains; both ways agree."""
    graph = random_graph(seed)
    parts = halo_structure(graph, (np.arange(40) % 3).astype(np.int32), 3)
    edges = halo_edges(parts)
    for local, found in zip(parts.ranks, edges, strict=True):
        n, rebuilt = local.num_owned, SampledGraph(local)
        dense = np.zeros((n, local.num_columns), int)
        for row in range(n):
            np.add.at(dense[row], local.indices[local.indptr[row] : local.indptr[row + 1]], 1)
        assert found.tolist() == dense[:, n:].sum(0).tolist()
        for epoch in range(2):
            drawn = Boundary.of(local).draw_received(rate, seed, epoch)
            count = rebuilt.rebuild(drawn)
            want = dense[:, np.concatenate([np.arange(n), n + drawn])]
            assert count == want.sum()
            got, back = np.zeros_like(want), np.zeros_like(want)
            for row in range(n):
                at = slice(rebuilt.indptr[row], rebuilt.indptr[row + 1])
                np.add.at(got[row], rebuilt.indices[at], 1)
            for column in range(n + len(drawn)):
                at = slice(rebuilt.indptr_t[column], rebuilt.indptr_t[column + 1])
                np.add.at(back[:, column], rebuilt.indices_t[at], 1)
            assert (got == want).all() and (back == want).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 999), rate=st.floats(0, 1))
def test_a_rebuilt_pattern_of_attention_is_that_of_the_kept_columns(seed: int, rate: float) -> None:
    """Self loops stay, ids stay with their entries, and places find them from either side."""
    graph = random_graph(seed)
    for local in halo_structure(graph, (np.arange(40) % 3).astype(np.int32), 3).ranks:
        n, every = local.num_owned, np.concatenate([local.owned, local.halo])
        indptr, indices = with_self_loops(local.indptr, local.indices)
        ids = np.repeat(local.owned, np.diff(indptr)) * 40 + every[indices]
        rebuilt = SampledAttention(indptr, indices, ids, Boundary.of(local), rate)
        for epoch in range(2):
            drawn = Boundary.of(local).draw_received(rate, seed, epoch)
            count, columns = rebuilt.rebuild(drawn), np.concatenate([np.arange(n), n + drawn])
            kept = np.isin(indices, columns)
            assert rebuilt.edge_ids is not None
            assert rebuilt.edge_ids[:count].tolist() == ids[kept].tolist()
            assert every[columns][rebuilt.indices[:count]].tolist() == (ids[kept] % 40).tolist()
            rows = np.repeat(np.arange(n), np.diff(rebuilt.indptr))
            assert (local.owned[rows] == ids[kept] // 40).all()
            turned = transpose(rebuilt.indptr, rebuilt.indices[:count], len(columns))
            assert rebuilt.indptr_t[: len(columns) + 1].tolist() == turned.indptr.tolist()
            assert rebuilt.indices_t[:count].tolist() == turned.indices.tolist()
            assert rebuilt.edges_t[:count].tolist() == turned.edges.tolist()


@settings(max_examples=30)
@given(seed=st.integers(0, 999), rate=st.floats(0, 1))
def test_buffers_hold_the_largest_draw_and_no_more(seed: int, rate: float) -> None:
    """The most edges that a draw can bring are those of each peer's busiest rows."""
    graph = random_graph(seed)
    parts = halo_structure(graph, (np.arange(40) % 3).astype(np.int32), 3)
    for local, found in zip(parts.ranks, halo_edges(parts), strict=True):
        boundary, inner = Boundary.of(local), local.csr.indices.size - int(found.sum())
        busiest = [
            start + np.argsort(found[start:end], kind="stable")[end - start - count :]
            for start, end, count in zip(
                boundary.halo_offsets, boundary.halo_offsets[1:], boundary.taken(rate), strict=False
            )
        ]
        sampled = SampledGraph(local, rate)
        assert sampled.rebuild(np.sort(np.concatenate(busiest))) == len(sampled.indices)
        assert len(sampled.indices) == inner + boundary.most_edges(found, rate)
        assert len(sampled.indptr_t) == local.num_owned + sum(boundary.taken(rate)) + 1


def test_scales_are_of_the_realised_ratio_not_of_the_rate() -> None:
    graph = random_graph(1)
    parts = halo_structure(graph, (np.arange(40) % 3).astype(np.int32), 3)
    for local, counts in zip(parts.ranks, parts.counts, strict=True):
        scales = Boundary.of(local).scales(0.37)
        want = [c / floor(0.37 * c) for c in counts for _ in range(c)]
        np.testing.assert_allclose(scales, want)
        assert (Boundary.of(local).scales(0.0) == 0).all()
