"""Plans of boundary sampling: what travels, what is held, and what a profile can say of the cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.bns import profile_cut
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.boundary import drawn_rows
from gnnbench.data.generators import generate, uniform
from gnnbench.data.partition import partition
from gnnbench.data.profile import GraphProfile, HaloPoint, load_profile
from gnnbench.data.profile import profile as measure
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Phase, pick

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
BNS = APPROACHES.get("bns")
CUT = [0, 0, 1, 1, 1]
"""Owners of a path: both boundaries are one row, and 2 of its 8 stored edges cross."""


def held(plan: Plan) -> dict[str, int]:
    return {buffer.name: pick(buffer.bytes, 0) for buffer in plan.resident}


def forward_entries(plan: Plan, layer: int = 1) -> int:
    """Entries of a layer's sums in the first epoch, over all ranks."""
    return sum(
        step.work.nonzeros
        for steps in plan.iterations[0]
        for step in steps
        if (step.kind, step.phase, step.layer) == (Kind.SPMM, Phase.FORWARD, layer)
    )


def drawn(profile: GraphProfile, run: RunSpec) -> int:
    """Rows that all ranks receive."""
    rate = BNS.knobs(run).rate
    received = BNS.structure(profile, run).sizes.received
    return sum(drawn_rows(rate, int(rows)) for rows in received.ravel())


@pytest.mark.parametrize(("rate", "lost"), [(0.5, 2), (1.0, 0)])
def test_pairs_that_are_never_drawn_are_notes(planned: PlanOf, rate: float, lost: int) -> None:
    """Half of one row is none."""
    plan = planned("bns", 2, owner=CUT, rate=rate)
    assert (plan.notes["pairs_never_drawn"], plan.notes["rows_never_drawn"]) == (lost, lost)
    assert ("2 pairs of ranks, 2 rows, are too small" in plan.basis) == bool(lost)


def test_rate_zero_sends_gradients_of_weights_only_fg_30(planned: PlanOf) -> None:
    plan = planned("bns", 2, owner=CUT, rate=0.0)
    assert set(plan.moved_bytes()) == {("all_reduce", "sync")}
    assert [forward_entries(plan, layer) for layer in (1, 2)] == [6, 6]


def test_a_plan_of_more_epochs_than_it_tells_apart_says_so(
    make_run: MakeRun, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, owner = uniform(40, 8, seed=4, num_features=3, num_classes=2), [i % 2 for i in range(40)]
    run = make_run("bns", 2, rate=0.5, training={"epochs": 12})
    plan = plan_of(graph, run, owner)
    assert (plan.counted, len(plan.iterations)) == (True, 12)
    monkeypatch.setattr(type(BNS), "max_rows", 5 * plan.notes["halo_rows"])
    plan = plan_of(graph, run, owner)
    assert len(plan.iterations) == 5
    assert not plan.counted and "draws of 5 epochs" in plan.basis
    assert plan.schedule[:6] == (0, 1, 2, 3, 4, 0)
    # Bytes are the same in every epoch, so they stay exact.
    assert plan.moved_bytes(0) == plan.moved_bytes(11)


@pytest.mark.parametrize("parts", [2, 64, 1024])
def test_a_profile_gives_the_closed_form_in_bytes(
    make_run: MakeRun, plan_of: PlanOf, parts: int
) -> None:
    profile = load_profile("ogbn-products")
    run = make_run("bns", parts, rate=0.1, model={"hidden": 64})
    plan, rows = plan_of(profile, run), drawn(profile, run)
    moved = plan.moved_bytes()
    assert moved["all_to_all", "sample"] == 8 * rows
    assert moved["all_to_all", "forward"] == 4 * rows * (64 + 47)  # 100 -> 64 -> 47, min_width
    assert not plan.counted


@pytest.mark.parametrize("parts", [2, 64])
def test_a_profile_plans_attention_over_drawn_rows(
    make_run: MakeRun, plan_of: PlanOf, parts: int
) -> None:
    """Rows of T = H W both ways, in every layer: 64 + 47; self loops among the entries."""
    profile = load_profile("ogbn-products")
    gat = {"kind": "gat", "heads": 4, "hidden": 64}
    run = make_run("bns", parts, rate=0.1, model=gat)
    plan, rows = plan_of(profile, run), drawn(profile, run)
    moved = plan.moved_bytes()
    assert moved["all_to_all", "forward"] == moved["all_to_all", "backward"] == 4 * rows * 111
    assert moved["all_to_all", "sample"] == 8 * rows
    sizes = BNS.structure(profile, run).sizes
    own, taken = int(sizes.rows[0]), sum(drawn_rows(0.1, int(r)) for r in sizes.received[0])
    named = {step.name: step.work for step in plan.iterations[0][0]}
    kept = named["forward/1/sddmm"].nonzeros
    assert own < kept < own + sizes.nonzeros[0]
    assert held(plan)["x"] == 4 * 100 * (own + taken)
    assert held(plan)["sampled_topology"] == 16 * kept + 8 * (2 * own + taken + 2)


def test_a_smaller_rate_holds_less(planned: PlanOf) -> None:
    """Rows, entries and scales fall with the rate; lists of the boundary and places do not."""
    graph = uniform(40, 20, seed=4, num_features=3, num_classes=2)
    owner = [i % 2 for i in range(40)]
    sizes = [
        held(planned("bns", 2, data=graph, owner=owner, rate=rate, model={"kind": "gcn"}))
        for rate in (0.1, 0.5, 1.0)
    ]
    for name in ("x", "sampled_topology", "sampled_scales"):
        assert sizes[0][name] < sizes[1][name] < sizes[2][name]
    for name in ("boundary", "sampled_places", "topology"):
        assert sizes[0][name] == sizes[1][name] == sizes[2][name]


def cut_in_half(**fields: Any) -> GraphProfile:
    """1,000 nodes, 10,000 edges, half of them cut, halo 0.8 per node: 6.25 edges a halo row."""
    point = HaloPoint(parts=2, method="metis-vol", halo_per_node=0.8, cut_fraction=0.5)
    return GraphProfile(
        name="p",
        source="test",
        status="measured",
        num_nodes=1000,
        num_edges=10_000,
        num_train=100,
        num_features=8,
        num_classes=4,
        halo=(point,),
        degree_values=(10.0,),
        degree_counts=(1000,),
        **fields,
    )


@pytest.mark.parametrize(("rate", "entries"), [(0.0, 5000), (0.5, 7500), (1.0, 10_000)])
def test_a_profile_thins_the_cut_and_nothing_else(
    planned: PlanOf, rate: float, entries: int
) -> None:
    plan = planned("bns", 2, data=cut_in_half(), rate=rate)
    assert forward_entries(plan) == entries
    assert "6.25 edges per halo row" in plan.basis


@pytest.mark.parametrize("parts", [2, 8])
def test_without_a_measured_cut_that_of_random_owners_is_scaled_to_the_halo(
    make_run: MakeRun, parts: int
) -> None:
    """For random owners themselves the cut is 1 - 1/P; half their halo has half their cut."""
    profile = dataclasses.replace(load_profile("ogbn-products"), halo=())
    structure = BNS.structure(profile, make_run("bns", parts, partitioner="hash"))
    edges, basis = profile_cut(profile, structure, "hash")
    assert edges.sum() == pytest.approx((1 - 1 / parts) * profile.num_edges, rel=1e-3)
    assert basis.endswith("as of random owners")
    sizes = dataclasses.replace(structure.sizes, received=structure.sizes.received // 2)
    fewer, _ = profile_cut(profile, dataclasses.replace(structure, sizes=sizes), "hash")
    assert fewer.sum() == pytest.approx(edges.sum() / 2, rel=1e-3)


def test_the_cut_of_a_metis_partition_is_estimated_within_a_factor_of_two() -> None:
    options = {"mean_degree": 12, "num_classes": 8, "num_features": 2, "homophily": 0.8, "seed": 2}
    graph = generate("planted_partition", num_nodes=4000, **options)
    owner = partition(graph, 8, method="metis", objective="vol", seed=1)
    true = np.mean(owner[graph.indices] != np.repeat(owner, graph.in_degrees()))
    structure = PartitionStructure.of_assignment(graph, owner, 8)
    edges, _ = profile_cut(measure(graph, parts=(), fanouts=()), structure, "metis-vol")
    assert true / 2 < edges.sum() / graph.num_edges < true * 2


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_a_share(rate: float) -> None:
    problems: list[str] = []
    BNS.parse_knobs({"rate": rate}, "knobs", problems)
    assert problems == [f"knobs.rate: found {rate}, allowed >= 0 and <= 1"]
