"""Plans of layer-wise and subgraph batches: sizes, epochs, estimates without the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.mini_batch.batch import draw_batch
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.expected import expected_within
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile, profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, pick

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
BATCH = {"size": 100, "fanouts_from_seeds": (5, 5)}


@pytest.fixture(scope="module")
def planted() -> Graph:
    """4,000 vertices, 2,400 of them training ones."""
    return planted_partition(4000, 10, 8, 5, seed=1, homophily=0.6)


def sizes(plan: Plan, place: int = 0, rank: int = 0) -> dict[str, Any]:
    return {step.name: step.work for step in plan.iterations[plan.schedule[place]][rank]}


@pytest.mark.parametrize(
    ("name", "knobs", "epoch"),
    [
        ("labor", {}, 24),
        ("ladies", {"layer_vertices": 100}, 24),
        # 100 clusters in subgraphs of 5, two to a batch on two ranks.
        ("cluster-gcn", {"clusters": 100, "merged": 5}, 10),
        ("cluster-gcn", {"clusters": 100, "merged": 7, "subgraphs": 3}, 5),
        # 4,000 vertices in walks of 3 vertices from 100 roots, two subgraphs to a batch.
        ("graphsaint", {"budget": 100, "coverage": 1}, 7),
        ("graphsaint", {"budget": 100, "sampler": "node", "coverage": 1, "subgraphs": 1}, 40),
        ("graphsaint", {"sampler": "whole", "coverage": 1}, 1),
    ],
)
def test_steps_of_an_epoch(
    name: str, knobs: dict[str, Any], epoch: int, planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    run = make_run(name, 2, batch=BATCH, **knobs)
    plan = plan_of(planted, run)
    assert list(plan.periods) == [epoch, epoch]
    # Only gradients travel, and candidates of LADIES.
    gathers = {"all_gather"} if name == "ladies" else set()
    assert {kind for kind, _ in plan.moved_bytes()} == {"all_reduce"} | gathers
    first = sizes(plan)
    assert first["sample/draw"].op == APPROACHES.get(name).form.op


def test_a_subgraphs_layers_share_one_block(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """Blocks are held, turned and copied once, however deep the model is."""
    held = {}
    for layers in (2, 4):
        run = make_run("cluster-gcn", model={"layers": layers}, clusters=100, merged=5)
        plan = plan_of(planted, run, device="cuda")
        steps = {step.name: step for step in plan.iterations[0][0]}
        blocks, _ = steps["sample/draw"].allocates
        held[layers] = pick(blocks.bytes, 0)
        work = sizes(plan)
        edges = work["forward/1/spmm"].nonzeros
        assert work["forward/2/spmm"].nonzeros == edges == work["sample/prepare"].nonzeros
        assert steps["fetch/copy"].work.bytes == held[layers]
    assert held[2] == held[4]


def test_only_normalised_subgraphs_have_weights_of_edges(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    ops = {}
    for name, knobs in (("graphsaint", {"budget": 100, "coverage": 1}), ("cluster-gcn", {})):
        work = sizes(plan_of(planted, make_run(name, **knobs)))
        ops[name] = {w.op for w in work.values() if w.kind is Kind.SPMM}
    assert ops == {"graphsaint": {"spmm_edges"}, "cluster-gcn": {"spmm"}}


@pytest.mark.parametrize(
    ("name", "ranks", "knobs", "within"),
    [
        ("labor", 2, {}, 0.1),
        ("labor", 1, {"layer_dependency": True}, 0.1),
        ("ladies", 1, {"layer_vertices": 100}, 0.1),
        ("ladies", 2, {"layer_vertices": 300}, 0.1),
        ("ladies", 2, {"layer_vertices": 300, "draws": "poisson"}, 0.1),
        ("cluster-gcn", 3, {"clusters": 64, "merged": 4, "subgraphs": 3}, 0.1),
        ("graphsaint", 2, {"budget": 150, "coverage": 1}, 0.25),
        ("graphsaint", 1, {"budget": 400, "sampler": "node", "coverage": 1}, 0.25),
        ("graphsaint", 1, {"budget": 300, "sampler": "edge", "coverage": 1}, 0.25),
    ],
)
def test_a_profile_of_the_graph_predicts_nearly_its_batches(
    name: str,
    ranks: int,
    knobs: dict[str, Any],
    within: float,
    planted: Graph,
    make_run: MakeRun,
) -> None:
    """Vertices, edges, loss rows and edges looked at of a mean rank, without the graph."""
    card, run = APPROACHES.get(name), make_run(name, ranks, batch=BATCH, **knobs)
    known = profile(planted, parts=(8, 64), methods=("metis-cut",), fanouts=())
    found = card.estimate(known, run, partitioned=False)
    source = card.source(planted, run, card.structure(planted, run).prepared)
    steps = range(min(source.steps, 24))
    drawn = [draw_batch(source, ranks, None, 0, step) for step in steps]
    for field in ("vertices", "edges", "counted_rows", "scanned"):
        wanted = np.mean([np.mean(np.atleast_2d(getattr(b, field)), axis=1) for b in drawn], axis=0)
        estimate = np.mean(np.atleast_2d(getattr(found, field)), axis=1)
        few = within if field == "edges" else min(within, 0.1)
        np.testing.assert_allclose(estimate, wanted, rtol=few, err_msg=field)


@pytest.mark.parametrize("name", ["labor", "ladies", "cluster-gcn", "graphsaint"])
def test_a_graph_that_is_not_there_is_planned(
    name: str, make_run: MakeRun, plan_of: PlanOf
) -> None:
    plan = plan_of(load_profile("reddit"), make_run(name, 4, batch=BATCH))
    assert not plan.counted
    assert "profile reddit" in plan.basis


def test_a_share_of_edges_within_parts_follows_the_curve() -> None:
    curve = [(4, 0.2), (16, 0.36)]  # 0.8 and 0.64 within
    assert expected_within(4, curve) == pytest.approx(0.8)
    assert expected_within(8, curve) == pytest.approx(np.sqrt(0.8 * 0.64))
    assert expected_within(64, curve) == pytest.approx(0.8 * 0.64)
    assert expected_within(2, curve) == pytest.approx(np.sqrt(0.8))
    assert expected_within(50, []) == pytest.approx(0.02)
    assert expected_within(1, curve) == 1


@pytest.mark.parametrize("name", ["sampled", "labor", "ladies", "cluster-gcn", "graphsaint"])
def test_variants_are_runs_that_differ_in_bytes_or_memory(
    name: str, planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """Advice compares them: defaults first, none where a rank is alone."""
    card, few = APPROACHES.get(name), {"coverage": 1} if name == "graphsaint" else {}
    run = make_run(name, 2, batch=BATCH, **few)
    variants = card.variants(run)
    assert variants[0] == {}
    assert len(variants) > 1
    found = set()
    for knobs in variants:
        problems: list[str] = []
        assert card.parse_knobs(knobs, "knobs", problems) is not None, problems
        plan = plan_of(planted, make_run(name, 2, batch=BATCH, **{**few, **knobs}))
        moved = sum(plan.moved_bytes().values())
        found.add((moved, int(plan.peak_bytes(*plan.spaces())[0])))
    assert len(found) == len(variants)


def test_candidates_of_ladies_are_gathered_in_closed_form(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """Per hop and rank (P - 1) (8 + 16 x the longest list); nothing where ranks look alone."""
    run = make_run("ladies", 3, batch=BATCH, layer_vertices=60)
    source = APPROACHES.get("ladies").source(planted, run, None)
    wanted = sum(
        3 * 2 * (8 + 16 * int(hop.candidates.max()))
        for step in range(source.steps)
        for hop in draw_batch(source, 3, None, 0, step).near
    )
    assert wanted > 0
    plan = plan_of(planted, run)
    assert plan.moved_bytes(0)["all_gather", "sample"] == wanted
    alone = make_run("ladies", 3, batch=BATCH, layer_vertices=60, candidates="replicated")
    other = plan_of(planted, alone)
    assert ("all_gather", "sample") not in other.moved_bytes(0)
    # The same blocks either way.
    assert sizes(plan)["forward/1/spmm"] == sizes(other)["forward/1/spmm"]
