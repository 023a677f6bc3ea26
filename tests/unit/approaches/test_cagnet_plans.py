"""Plans of CAGNET: grids, rank rules, closed forms from profiles, classes, condensed stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.approaches.base import GraphLike, Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph import cagnet, cagnet2d
from gnnbench.approaches.whole_graph.blocks import block_nonzeros, even_bounds
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.profile import load_profile
from gnnbench.iterations import RankClass, RankSteps
from gnnbench.plan import Plan
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import Kind, Phase

GCN = {"kind": "gcn", "hidden": 4, "layers": 2}
REPLICATED = {"replication": 2}


def make_run(approach: str, ranks: int, model: dict[str, Any] = GCN, **knobs: Any) -> RunSpec:
    return RunSpec(
        suite="test",
        dataset=DatasetRef(name="g", generator="uniform"),
        model=ModelSpec(name="m", **{**GCN, **model}),
        training=TrainingSpec(epochs=2),
        approach=approach,
        ranks=ranks,
        knobs=knobs,
    )


def plan_of(data: GraphLike, run: RunSpec, *, performed: bool = False) -> Plan:
    approach = APPROACHES.get(run.approach)
    layout = Layout(world_size=run.ranks, ranks_per_host=8, performed=performed)
    plan = approach.plan(data, run, approach.structure(data, run), layout)
    plan.validate()
    return plan


def random_graph(nodes: int, edges: int, seed: int = 2) -> Graph:
    """A directed graph of six features and two classes; every third vertex trains."""
    rng = np.random.default_rng(seed)
    return from_edges(
        "r",
        rng.integers(0, nodes, edges),
        rng.integers(0, nodes, edges),
        nodes,
        undirected=False,
        features=np.ones((nodes, 6), np.float32),
        labels=np.arange(nodes) % 2,
        num_classes=2,
        train_mask=np.arange(nodes) % 3 == 0,
    )


def totals(plan: Plan, kinds: set[Kind] | None = None) -> tuple[list[int], list[int]]:
    """Bytes sent by each rank, and flops of each rank, in one epoch."""
    sent, flops = [0] * plan.world_size, [0] * plan.world_size
    for iteration in plan.of_period(0):
        for rank, steps in enumerate(iteration):
            for step in steps:
                if kinds is None or step.kind in kinds:
                    sent[rank] += step.bytes if step.group else 0
                    flops[rank] += step.flops
    return sent, flops


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
    graph = random_graph(20, 60, seed)
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
    approach: str, knobs: dict[str, Any], allowed: list[int], reason: str
) -> None:
    card = APPROACHES.get(approach)
    for ranks in range(1, 19):
        said = card.cannot_run(make_run(approach, ranks, **knobs))
        if not reason or ranks in allowed:
            assert said is None
        else:
            assert said is not None and reason in said and f"{ranks} asked" in said


def test_only_whole_rows_are_normalised_and_no_weights_are_attended_to() -> None:
    for name, norm in (("cagnet-1d", None), ("cagnet-1.5d", None), ("cagnet-2d", "LayerNorm")):
        card = APPROACHES.get(name)
        assert "softmax" in str(card.cannot_run(make_run(name, 4, {"kind": "gat"})))
        said = card.cannot_run(make_run(name, 4, {"norm": "layer"}))
        assert said is None if norm is None else norm in str(said)


def test_a_grid_splits_the_work_without_adding_to_it() -> None:
    """FG-5: flops of all ranks in products: 1D and 2D as single, 1.5D has c replicas."""
    graph = random_graph(40, 90)

    def flops(plan: Plan, kind: Kind) -> int:
        return sum(totals(plan, {kind})[1])

    alone = plan_of(graph, make_run("single", 1))
    for approach, ranks, knobs, replicas in (
        ("cagnet-1d", 1, {}, 1),
        ("cagnet-1d", 4, {}, 1),
        ("cagnet-1.5d", 4, REPLICATED, 2),
        ("cagnet-2d", 1, {}, 1),
        ("cagnet-2d", 4, {}, 1),
    ):
        plan = plan_of(graph, make_run(approach, ranks, **knobs))
        assert flops(plan, Kind.SPMM) == flops(alone, Kind.SPMM), approach
        assert flops(plan, Kind.GEMM) == replicas * flops(alone, Kind.GEMM), approach
        assert bool(plan.moved_bytes()) == (ranks > 1)


@pytest.mark.parametrize(
    ("approach", "ranks", "knobs"),
    [("cagnet-1d", 6, {}), ("cagnet-1.5d", 12, REPLICATED)],
)
def test_condensed_plans_move_and_compute_the_same_integers(
    monkeypatch: pytest.MonkeyPatch, approach: str, ranks: int, knobs: Any
) -> None:
    """FG-9, FG-11: what is written as calls of one step adds up to what happens on every rank."""
    graph, run = random_graph(33, 200), make_run(approach, ranks, **knobs)
    full = plan_of(graph, run)
    monkeypatch.setattr(cagnet, "CONDENSE_FROM", 0)
    condensed = plan_of(graph, run)
    assert condensed.num_steps() < full.num_steps()
    assert plan_of(graph, run, performed=True).num_steps() == full.num_steps()
    assert full.counted and not condensed.counted and "even over stages" in condensed.basis
    assert totals(condensed) == totals(full)
    assert condensed.peak_bytes().tolist() == full.peak_bytes().tolist()


def test_a_condensed_plan_takes_about_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of a profile are even, so writing them as calls of one changes no prediction."""
    from gnnbench.cluster import load_cluster
    from gnnbench_simulator.predict import predict_plan

    profile, cluster = load_profile("ogbn-arxiv"), load_cluster("dgx-a100")
    for approach, knobs in (("cagnet-1d", {}), ("cagnet-1.5d", REPLICATED)):
        run = make_run(approach, 16, {"hidden": 64}, **knobs)
        full = predict_plan(plan_of(profile, run), cluster, ranks_per_host=8)
        monkeypatch.setattr(cagnet, "CONDENSE_FROM", 0)
        condensed = predict_plan(plan_of(profile, run), cluster, ranks_per_host=8)
        monkeypatch.undo()
        assert condensed.period_s == pytest.approx(full.period_s, rel=0.01)


@pytest.mark.parametrize(
    ("approach", "ranks", "knobs"),
    [("cagnet-1d", 512, {}), ("cagnet-1.5d", 1024, {"replication": 4}), ("cagnet-2d", 64, {})],
)
def test_a_profile_gives_the_closed_form_at_any_number_of_ranks(
    approach: str, ranks: int, knobs: dict[str, Any]
) -> None:
    """FG-26: N d (P/c - 1) words a product of block rows; Q - 1 times N d and patterns in 2D."""
    profile = load_profile("ogbn-products")
    run = make_run(approach, ranks, {"hidden": 64, "layers": 3}, **knobs)
    shape, n = stack_shape(profile, run, "min_width"), profile.num_nodes
    plan = plan_of(profile, run)
    sent = sum(b for (kind, _), b in plan.moved_bytes().items() if kind == Kind.BROADCAST)
    widths = shape.forward_widths() + shape.backward_widths()
    s = shape.element_bytes
    if approach == "cagnet-2d":
        q, products = 8, 5 + (shape.orders[0] == "transform_first")
        dense = sum(shape.dims[:-1]) + sum(shape.dims[1:]) + profile.num_classes
        pattern = products * (profile.num_edges + q * n + q * q)
        assert sent == (q - 1) * (s * n * (widths + dense) + 8 * pattern)
    else:
        assert sent == s * n * widths * (ranks // knobs.get("replication", 1) - 1)


def written_alone(shape: StackShape, grid: Any, rank: int) -> RankSteps:
    """The steps of one rank, written without the others of its class."""
    ranks = np.array([rank])
    steps: cagnet.StageWriter | cagnet2d.SquareWriter
    if isinstance(grid, cagnet2d.SquareGrid):
        steps = cagnet2d.SquareWriter(shape, grid, ranks, Chain())
        row, group = grid.place(rank)[0], tuple(range(grid.world_size))
    else:
        of = cagnet.GridRanks(grid, ranks)
        steps = cagnet.StageWriter(shape, of, Chain())
        row, group = grid.place(rank)[0], steps.column_group  # type: ignore[assignment]
    steps.forward()
    steps.loss(int(grid.train_rows[row]))
    steps.backward()
    steps.update(group)
    return RankClass(ranks, steps.chain.done()).of(0)


GRIDS = [
    *(("cagnet-1d", ranks, {}) for ranks in (1, 5)),
    *(("cagnet-1.5d", ranks, REPLICATED) for ranks in (4, 12)),
    *(("cagnet-2d", ranks, {}) for ranks in (1, 4, 9, 25)),
]


@pytest.mark.parametrize(("approach", "ranks", "knobs"), GRIDS)
@pytest.mark.parametrize("order", ["aggregate_first", "transform_first"])
@pytest.mark.parametrize("nodes", [3, 40])
def test_ranks_of_a_class_have_the_steps_that_each_would_have_alone(
    approach: str, ranks: int, knobs: dict[str, Any], order: str, nodes: int
) -> None:
    """Blocks without rows or columns included: 3 vertices and 2 classes on up to 5 x 5 ranks."""
    graph = random_graph(nodes, 90)
    for kind in ("gcn", "sage"):
        run = make_run(approach, ranks, {"kind": kind, "dropout": 0.5}, order=order, **knobs)
        plan, grid = plan_of(graph, run), APPROACHES.get(approach).structure(graph, run)
        shape = stack_shape(graph, run, order)
        [iteration] = plan.iterations
        for rank in range(ranks):
            assert iteration[rank] == written_alone(shape, grid, rank)
        # One class where no block is empty.
        assert nodes < 40 or ranks > 4 or len(iteration.classes) == 1


def test_replication_one_is_1d() -> None:
    """FG-25."""
    graph = random_graph(40, 90)
    [one] = plan_of(graph, make_run("cagnet-1d", 3)).iterations
    [other] = plan_of(graph, make_run("cagnet-1.5d", 3, replication=1)).iterations
    assert list(one) == list(other)
    assert any(step.phase is Phase.SYNC for step in one[0])


@pytest.mark.parametrize(
    ("approach", "most"), [("cagnet-1d", 40), ("cagnet-1.5d", 40), ("cagnet-2d", 1000)]
)
def test_the_steps_of_a_thousand_ranks_are_written_at_once(approach: str, most: int) -> None:
    """One class: a stage is a step of all ranks, and block rows have two steps for all stages."""
    plan = plan_of(load_profile("ogbn-products"), make_run(approach, 1024, {"hidden": 64}))
    [iteration] = plan.iterations
    [together] = iteration.classes
    assert len(together) == 1024 and len(together.steps) < most
