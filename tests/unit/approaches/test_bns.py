"""Boundary sampling and its plans: how many rows, which, and what a profile can say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.bns import profile_cut
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.boundary import (
    Boundary,
    SampledAttention,
    SampledGraph,
    draw_boundary,
    drawn_rows,
    halo_edges,
)
from gnnbench.data.generators import generate
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import halo_structure, transpose, with_self_loops
from gnnbench.data.partition import partition
from gnnbench.data.profile import GraphProfile, HaloPoint, load_profile
from gnnbench.data.profile import profile as measure
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Phase

MakeRun = Callable[..., RunSpec]


def plan_of(graph: Graph | GraphProfile, run: RunSpec, owner: list[int] | None = None) -> Plan:
    approach = APPROACHES.get(run.approach)
    if owner is None:
        structure = approach.structure(graph, run)
    else:
        assert isinstance(graph, Graph)
        structure = PartitionStructure.of_assignment(graph, np.array(owner, np.int32), run.ranks)
    plan = approach.plan(graph, run, structure, Layout(world_size=run.ranks, ranks_per_host=8))
    plan.validate()
    return plan


def random_graph(seed: int, n: int = 40, edges: int = 160) -> Graph:
    rng = np.random.default_rng(seed)
    return from_edges(
        "random", rng.integers(0, n, edges), rng.integers(0, n, edges), n, undirected=False,
        features=np.zeros((n, 3), np.float32), labels=rng.integers(0, 2, n), num_classes=2,
        train_mask=np.ones(n, bool),
    )  # fmt: skip


# Draws


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


@settings(deadline=None, max_examples=30)
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


@settings(deadline=None, max_examples=30)
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


@settings(deadline=None, max_examples=30)
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


@settings(deadline=None, max_examples=30)
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


# Plans


def test_pairs_that_are_never_drawn_are_told(path_graph: Graph, make_run: MakeRun) -> None:
    """Owners 0 0 | 1 1 1 of a path: both boundaries are one row, and half a row is none."""
    notes = plan_of(path_graph, make_run("bns", 2, rate=0.5), [0, 0, 1, 1, 1]).notes
    assert (notes["pairs_never_drawn"], notes["rows_never_drawn"]) == (2, 2)
    assert (
        "2 pairs of ranks, 2 rows, are too small"
        in plan_of(path_graph, make_run("bns", 2, rate=0.5), [0, 0, 1, 1, 1]).basis
    )
    notes = plan_of(path_graph, make_run("bns", 2, rate=1.0), [0, 0, 1, 1, 1]).notes
    assert (notes["pairs_never_drawn"], notes["rows_never_drawn"]) == (0, 0)


def test_rate_zero_sends_gradients_of_weights_only_fg_30(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run("bns", 2, rate=0.0), [0, 0, 1, 1, 1])
    assert set(plan.sent_bytes()) == {("all_reduce", "sync")}
    # Of the path's 8 stored edges, 2 cross.
    entries = [s.nonzeros for steps in plan.iterations[0] for s in steps if s.name.endswith("spmm")]
    assert sum(entries[: len(entries) // 2]) + sum(entries[len(entries) // 2 :]) == 6 * (
        len(entries) // 2
    )


def test_a_plan_of_more_epochs_than_it_tells_apart_says_so(make_run: MakeRun) -> None:
    graph, owner = random_graph(4), [i % 2 for i in range(40)]
    run = make_run("bns", 2, rate=0.5, training={"epochs": 12})
    assert plan_of(graph, run, owner).exact
    approach = APPROACHES.get("bns")
    few = type(approach)()
    few.max_steps = 5 * 2 * 23  # type: ignore[attr-defined]
    structure = PartitionStructure.of_assignment(graph, np.array(owner, np.int32), 2)
    plan = few.plan(graph, run, structure, Layout(world_size=2, ranks_per_host=2))
    assert 1 < len(plan.iterations) < 12
    assert not plan.exact and "epochs" in plan.basis
    assert plan.schedule[: len(plan.iterations) + 1] == (*range(len(plan.iterations)), 0)
    # Bytes are the same in every epoch, so they stay exact.
    assert plan.sent_bytes(0) == plan.sent_bytes(11)


@pytest.mark.parametrize("parts", [2, 8, 64, 1024])
def test_a_profile_gives_the_closed_form_in_bytes(make_run: MakeRun, parts: int) -> None:
    profile = load_profile("ogbn-products")
    run = make_run("bns", parts, rate=0.1, hidden=64)
    structure = APPROACHES.get("bns").structure(profile, run)
    plan = plan_of(profile, run)
    drawn = sum(drawn_rows(0.1, r) for s in structure.sizes for r in s.recv_rows)
    sent = plan.sent_bytes()
    assert sent["all_to_all", "sample"] == 8 * drawn
    assert sent["all_to_all", "forward"] == 4 * drawn * (64 + 47)  # 100 -> 64 -> 47, min_width
    assert not plan.exact


@pytest.mark.parametrize("parts", [2, 64])
def test_a_profile_plans_attention_over_drawn_rows(make_run: MakeRun, parts: int) -> None:
    """Rows of T = H W both ways, in every layer: 64 + 47; self loops among the entries."""
    profile = load_profile("ogbn-products")
    run = make_run("bns", parts, rate=0.1, hidden=64)
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, kind="gat", heads=4))
    structure = APPROACHES.get("bns").structure(profile, run)
    plan = plan_of(profile, run)
    drawn = sum(drawn_rows(0.1, r) for s in structure.sizes for r in s.recv_rows)
    sent = plan.sent_bytes()
    assert sent["all_to_all", "forward"] == sent["all_to_all", "backward"] == 4 * drawn * 111
    assert sent["all_to_all", "sample"] == 8 * drawn
    rank, size = plan.iterations[0][0], structure.sizes[0]
    named = {step.name: step for step in rank}
    kept = named["forward/1/sddmm"].nonzeros
    assert size.rows < kept < size.rows + size.nonzeros
    held = plan.resident[0]
    taken = sum(drawn_rows(0.1, r) for r in size.recv_rows)
    assert held["x"] == 4 * 100 * (size.rows + taken)
    assert held["sampled_topology"] == 16 * kept + 8 * (2 * size.rows + taken + 2)


def test_a_smaller_rate_holds_less(make_run: MakeRun) -> None:
    """Rows, entries and scales fall with the rate; lists of the boundary and places do not."""
    graph, owner = random_graph(4, edges=400), [i % 2 for i in range(40)]
    held = [plan_of(graph, make_run("bns", 2, rate=r), owner).resident[0] for r in (0.1, 0.5, 1.0)]
    for name in ("x", "sampled_topology", "sampled_scales"):
        assert held[0][name] < held[1][name] < held[2][name]
    for name in ("boundary", "sampled_places", "topology"):
        assert held[0][name] == held[1][name] == held[2][name]


def test_a_profile_thins_the_cut_and_nothing_else(make_run: MakeRun) -> None:
    """1,000 nodes, 10,000 edges, half of them cut, halo 0.8 per node: 6.25 edges a halo row."""
    profile = GraphProfile(
        name="p", source="test", status="measured", num_nodes=1000, num_edges=10_000,
        num_train=100, num_features=8, num_classes=4,
        halo=(HaloPoint(parts=2, method="metis-vol", halo_per_node=0.8, cut_fraction=0.5),),
        degree_values=(10.0,), degree_counts=(1000,),
    )  # fmt: skip
    entries = {}
    for rate in (0.0, 0.5, 1.0):
        plan = plan_of(profile, make_run("bns", 2, rate=rate))
        spmm = [
            s for steps in plan.iterations[0] for s in steps
            if s.kind is Kind.SPMM and s.phase is Phase.FORWARD and s.layer == 1
        ]  # fmt: skip
        entries[rate] = sum(s.nonzeros for s in spmm)
        assert "6.25 edges per halo row" in plan.basis
    assert entries == {0.0: 5000, 0.5: 7500, 1.0: 10_000}


@pytest.mark.parametrize("parts", [2, 8])
def test_without_a_measured_cut_that_of_random_owners_is_scaled_to_the_halo(
    make_run: MakeRun, parts: int
) -> None:
    """For random owners themselves the cut is 1 - 1/P; half their halo has half their cut."""
    profile = dataclasses.replace(load_profile("ogbn-products"), halo=())
    sizes = (
        APPROACHES.get("bns").structure(profile, make_run("bns", parts, partitioner="hash")).sizes
    )
    edges, basis = profile_cut(profile, PartitionStructure(sizes=sizes), "hash")
    assert sum(edges) == pytest.approx((1 - 1 / parts) * profile.num_edges, rel=1e-3)
    assert basis.endswith("as of random owners")
    halves = [dataclasses.replace(s, recv_rows=tuple(r // 2 for r in s.recv_rows)) for s in sizes]
    fewer, _ = profile_cut(profile, PartitionStructure(sizes=halves), "hash")
    assert sum(fewer) == pytest.approx(sum(edges) / 2, rel=1e-3)


def test_the_cut_of_a_metis_partition_is_estimated_within_a_factor_of_two() -> None:
    graph = generate(
        "planted_partition", num_nodes=4000, mean_degree=12, num_classes=8, num_features=2,
        homophily=0.8, seed=2,
    )  # fmt: skip
    owner = partition(graph, 8, method="metis", objective="vol", seed=1)
    true = np.mean(owner[graph.indices] != np.repeat(owner, graph.in_degrees()))
    structure = PartitionStructure.of_assignment(graph, owner, 8)
    edges, _ = profile_cut(measure(graph, parts=(), fanouts=()), structure, "metis-vol")
    assert true / 2 < sum(edges) / graph.num_edges < true * 2


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_a_share(rate: float) -> None:
    problems: list[str] = []
    APPROACHES.get("bns").parse_knobs({"rate": rate}, "knobs", problems)
    assert problems == [f"knobs.rate: found {rate}, allowed >= 0 and <= 1"]
