"""Plans of CAGNET: grids, rank rules, closed forms from profiles, condensed stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph import cagnet, cagnet2d
from gnnbench.approaches.whole_graph.cagnet import block_nonzeros, even_bounds
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Phase

MakeRun = Callable[..., RunSpec]


def plan_of(graph: Graph | GraphProfile, run: RunSpec) -> Plan:
    approach = APPROACHES.get(run.approach)
    plan = approach.plan(
        graph, run, approach.structure(graph, run), Layout(world_size=run.ranks, ranks_per_host=8)
    )
    plan.validate()
    return plan


def totals(plan: Plan) -> dict[str, Any]:
    """Bytes sent by each rank and flops of each rank, of one epoch."""
    sent, flops = [0] * plan.world_size, [0] * plan.world_size
    for iteration in plan.epoch(0):
        for rank, steps in enumerate(iteration):
            for step in steps:
                sent[rank] += step.bytes if step.kind in (Kind.BROADCAST, Kind.ALL_REDUCE) else 0
                flops[rank] += step.flops
    return {"sent": sent, "flops": flops}


@given(total=st.integers(0, 1000), parts=st.integers(1, 50))
@settings(max_examples=50)
def test_blocks_are_even_and_cover_everything(total: int, parts: int) -> None:
    """FG-28."""
    edges = even_bounds(total, parts)
    sizes = np.diff(edges)
    assert edges[0] == 0 and edges[-1] == total and len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1 and list(sizes) == sorted(sizes, reverse=True)


def test_entries_are_counted_by_destination_and_source_block() -> None:
    """FG-6: 0 -> 4, 1 -> 4 and 3 -> 0 in blocks {0, 1, 2}, {3, 4}: rows are destinations."""
    graph = from_edges("d", np.array([0, 1, 3]), np.array([4, 4, 0]), 5, undirected=False)
    assert block_nonzeros(graph, even_bounds(5, 2)).tolist() == [[0, 1], [2, 0]]


@given(ranks=st.sampled_from([1, 4, 9, 16]), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_every_entry_is_in_one_block(ranks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = from_edges("r", rng.integers(0, 20, 60), rng.integers(0, 20, 60), 20, undirected=False)
    assert block_nonzeros(graph, even_bounds(20, ranks)).sum() == graph.num_edges


@pytest.mark.parametrize(
    ("approach", "knobs", "allowed", "reason"),
    [
        ("cagnet-1d", {}, [1, 2, 3, 7], ""),
        ("cagnet-1.5d", {"replication": 1}, [1, 2, 3, 7], ""),
        ("cagnet-1.5d", {"replication": 2}, [4, 8, 12, 16], "multiples of 4 ranks"),
        ("cagnet-1.5d", {"replication": 3}, [9, 18], "multiples of 9 ranks"),
        ("cagnet-2d", {}, [1, 4, 9, 16], "a square number of ranks"),
    ],
)
def test_other_numbers_of_ranks_are_skipped_with_a_reason(
    make_run: MakeRun, approach: str, knobs: dict[str, Any], allowed: list[int], reason: str
) -> None:
    card = APPROACHES.get(approach)
    for ranks in range(1, 19):
        said = card.skip_reason(make_run(approach, ranks, **knobs))
        if not reason or ranks in allowed:
            assert said is None
        else:
            assert said is not None and reason in said and f"{ranks} asked" in said


@pytest.mark.parametrize("approach", ["cagnet-1d", "cagnet-2d"])
def test_one_rank_sends_nothing_and_computes_what_single_does(
    path_graph: Graph, make_run: MakeRun, approach: str
) -> None:
    """FG-5: gemm and spmm flops of one block are those of the single device."""
    mine = plan_of(path_graph, make_run(approach, 1))
    alone = plan_of(path_graph, make_run("single", 1))

    def work(plan: Plan) -> int:
        kinds = (Kind.GEMM, Kind.SPMM)
        return sum(s.flops for s in plan.iterations[0][0] if s.kind in kinds)

    assert not mine.sent_bytes()
    assert work(mine) == work(alone)


def test_a_grid_splits_the_work_without_adding_to_it(path_graph: Graph, make_run: MakeRun) -> None:
    """Flops of all ranks in sparse and dense products: 1D and 2D as single, 1.5D has c replicas."""

    def flops(plan: Plan, kind: Kind) -> int:
        return sum(s.flops for steps in plan.iterations[0] for s in steps if s.kind is kind)

    alone = plan_of(path_graph, make_run("single", 1))
    for approach, replicas in (("cagnet-1d", 1), ("cagnet-2d", 1), ("cagnet-1.5d", 2)):
        knobs = {"replication": 2} if replicas == 2 else {}
        plan = plan_of(path_graph, make_run(approach, 4, **knobs))
        assert flops(plan, Kind.SPMM) == flops(alone, Kind.SPMM), approach
        assert flops(plan, Kind.GEMM) == replicas * flops(alone, Kind.GEMM), approach


@pytest.mark.parametrize(
    ("approach", "ranks", "knobs"),
    [("cagnet-1d", 6, {}), ("cagnet-1.5d", 8, {"replication": 2})],
)
def test_condensed_plans_move_and_compute_the_same_integers(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, approach: str, ranks: int, knobs: Any
) -> None:
    """FG-9, FG-11: what is told as repeats adds up to what happens, rank by rank."""
    rng = np.random.default_rng(2)
    graph = from_edges(
        "r", rng.integers(0, 33, 200), rng.integers(0, 33, 200), 33, undirected=False,
        features=np.zeros((33, 5), np.float32), labels=np.zeros(33, np.int64), num_classes=3,
        train_mask=rng.random(33) < 0.5,
    )  # fmt: skip
    run = make_run(approach, ranks, **knobs)
    full = plan_of(graph, run)
    monkeypatch.setattr(cagnet, "CONDENSE_FROM", 0)
    condensed = plan_of(graph, run)
    assert condensed.iterations_per_epoch > 1 and not condensed.exact and full.exact
    assert totals(condensed) == totals(full)
    for rank in range(ranks):
        assert condensed.memory_peak_bytes(rank) == full.memory_peak_bytes(rank)


def test_a_condensed_plan_takes_about_as_long(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    """Stages of a profile are even, so telling them as repeats changes no prediction."""
    from gnnbench.cluster import load_cluster
    from gnnbench_simulator.predict import predict_plan

    graph, cluster = load_profile("ogbn-arxiv"), load_cluster("dgx-a100")
    for approach, knobs in (("cagnet-1d", {}), ("cagnet-1.5d", {"replication": 2})):
        run = make_run(approach, 16, hidden=64, **knobs)
        full = predict_plan(plan_of(graph, run), cluster, ranks_per_host=8)
        monkeypatch.setattr(cagnet, "CONDENSE_FROM", 0)
        condensed = predict_plan(plan_of(graph, run), cluster, ranks_per_host=8)
        monkeypatch.undo()
        assert condensed.epoch_s == pytest.approx(full.epoch_s, rel=0.01)


@pytest.mark.parametrize(
    ("approach", "ranks", "knobs"),
    [("cagnet-1d", 512, {}), ("cagnet-1.5d", 1024, {"replication": 4}), ("cagnet-2d", 64, {})],
)
def test_a_profile_gives_the_closed_form_at_any_number_of_ranks(
    make_run: MakeRun, approach: str, ranks: int, knobs: dict[str, Any]
) -> None:
    """FG-26: N d (P/c - 1) words a product of block rows; Q - 1 times N d and patterns in 2D."""
    graph = load_profile("ogbn-products")
    run = make_run(approach, ranks, hidden=64, layers=3, **knobs)
    shape, n = stack_shape(graph, run, "min_width"), graph.num_nodes
    plan = plan_of(graph, run)
    sent = sum(b for (kind, _), b in plan.sent_bytes().items() if kind == Kind.BROADCAST)
    widths = shape.forward_widths() + shape.backward_widths()
    s = shape.element_bytes
    if approach == "cagnet-2d":
        q, products = 8, 5 + (shape.orders[0] == "transform_first")
        dense = sum(shape.dims[:-1]) + sum(shape.dims[1:]) + graph.num_classes
        pattern = products * (graph.num_edges + q * n + q * q)
        assert sent == (q - 1) * (s * n * (widths + dense) + 8 * pattern)
    else:
        assert sent == s * n * widths * (ranks // knobs.get("replication", 1) - 1)


class EachForItself(cagnet2d.SquareSteps):
    """Every rank writes every stage, and shares none."""

    def _sparse(self, where: str, phase: Phase, layer: int, width: int, out: Any) -> None:
        self._sparse_stages(where, phase, layer, width, out)

    def _along_row(self, key: Any, write: Callable[[], None]) -> None:
        write()


@pytest.mark.parametrize("ranks", [1, 4, 9, 25])
@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ["aggregate_first", "transform_first"])
@pytest.mark.parametrize("nodes", [3, 40])
def test_stages_that_ranks_share_are_those_they_would_write_alone(
    make_run: MakeRun, ranks: int, kind: str, order: str, nodes: int
) -> None:
    """Blocks without rows or columns included: 3 vertices and 2 classes on up to 5 x 5 ranks."""
    rng = np.random.default_rng(ranks)
    graph = from_edges(
        "g", rng.integers(0, nodes, 90), rng.integers(0, nodes, 90), nodes,
        features=np.ones((nodes, 6), np.float32), labels=np.arange(nodes) % 2, num_classes=2,
        undirected=False,
    )  # fmt: skip
    graph = dataclasses.replace(graph, train_mask=np.arange(nodes) % 3 == 0)
    run = make_run("cagnet-2d", ranks, kind=kind, order=order)
    plan = plan_of(graph, run)
    grid = APPROACHES.get("cagnet-2d").structure(graph, run)
    shape = stack_shape(graph, run, order)
    for rank in range(ranks):
        alone = EachForItself(shape, grid, rank, cagnet2d.Shared())
        alone.forward()
        alone.loss(grid.train_rows[alone.row])
        alone.backward()
        alone.update(tuple(range(ranks)))
        assert alone.chain.done() == plan.iterations[0][rank]
