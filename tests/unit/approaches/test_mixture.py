"""Plans of `mixture`: bytes, balance, memory, profiles; what the conformance tests do not see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureStructure
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile, load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Step, pick

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
ORDERS = ("aggregate_first", "transform_first", "min_width")
SAGE = {"kind": "sage"}


def of_kind(plan: Plan, kind: Kind, rank: int) -> list[Step]:
    return [s for s in plan.iterations[0][rank] if s.kind is kind]


def moved(plan: Plan) -> int:
    return sum(size for (kind, _), size in plan.moved_bytes().items() if kind == Kind.ALL_TO_ALL)


def held(plan: Plan, rank: int = 0) -> dict[str, int]:
    """Bytes that live from before the first epoch on a rank."""
    return {buffer.name: pick(buffer.bytes, rank) for buffer in plan.resident}


def profile(**changes: Any) -> GraphProfile:
    facts = {
        "name": "p",
        "source": "made up",
        "status": "measured",
        "num_nodes": 840,
        "num_edges": 8400,
        "num_features": 24,
        "num_classes": 12,
        "num_train": 300,
    }
    return GraphProfile(**(facts | changes))


@pytest.mark.parametrize(
    "model", [{}, SAGE, {"kind": "gat", "heads": 2}, {"kind": "gat", "heads": 2, "dropout": 0.5}]
)
@pytest.mark.parametrize("order", ORDERS)
def test_one_rank_does_what_a_single_device_does_fg_5(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf, model: dict[str, Any], order: str
) -> None:
    alone = plan_of(path_graph, make_run("single", model=model, order=order))
    mixed = plan_of(path_graph, make_run("mixture", model=model, order=order))
    assert mixed.iterations[0][0] == alone.iterations[0][0]
    assert moved(mixed) == 0


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("precompute", [False, True])
def test_total_bytes_grow_to_a_bound_and_each_ranks_bytes_fall_fg_20(
    make_run: MakeRun, plan_of: PlanOf, kind: str, order: str, precompute: bool
) -> None:
    totals, by_rank = [], []
    for ranks in (1, 2, 3, 4, 6, 12):  # equal shares of 840 vertices and of every width
        model = {"kind": kind, "hidden": 36, "layers": 3}
        run = make_run("mixture", ranks, model=model, order=order, precompute=precompute)
        plan = plan_of(profile(), run)
        totals.append(moved(plan))
        if ranks > 1:
            [sent] = {
                sum(s.bytes for s in of_kind(plan, Kind.ALL_TO_ALL, rank)) for rank in range(ranks)
            }
            by_rank.append(sent)
    assert totals == sorted(totals)
    widest = {"aggregate_first": (24, 36, 36), "transform_first": (36, 36, 12)}
    widths = widest.get(order, (24, 36, 12))
    assert totals[-1] < 4 * 840 * 4 * sum(widths if not precompute else (24, *widths[1:]))
    assert all(a > b for a, b in pairwise(by_rank))


@pytest.mark.parametrize("ranks", [2, 3, 5, 7, 16])
def test_work_is_balanced_to_a_column_and_a_row_fg_21(
    make_run: MakeRun, plan_of: PlanOf, ranks: int
) -> None:
    plan = plan_of(profile(), make_run("mixture", ranks, model={"hidden": 10, "layers": 3}))
    names = {s.name for rank in range(ranks) for s in of_kind(plan, Kind.SPMM, rank)}
    for name in names:
        # A rank without a column of this width has no product to do.
        load = [
            sum(s.flops // 2 for s in of_kind(plan, Kind.SPMM, rank) if s.name == name)
            for rank in range(ranks)
        ]
        assert max(load) - min(load) <= 8400
    updates = [
        [s for s in of_kind(plan, Kind.GEMM, rank) if s.op != "gemm_tn"] for rank in range(ranks)
    ]
    for together in zip(*updates, strict=True):
        rows = [step.work.rows for step in together]
        assert max(rows) - min(rows) <= 1


def test_ranks_with_columns_of_the_same_widths_are_a_class(
    make_run: MakeRun, plan_of: PlanOf
) -> None:
    """Sixteen ranks, 10 hidden columns and 12 classes: ranks 10, 11 and 12 to 15 lack some."""
    run = make_run("mixture", 16, model={"hidden": 10}, order="transform_first")
    plan = plan_of(profile(), run)
    ranks = [list(of.ranks) for of in plan.iterations[0].classes]
    assert ranks == [list(range(10)), [10, 11], [12, 13, 14, 15]]
    # Transformed to 10 columns, then 12: products of both layers, of one, of none.
    assert [len(of_kind(plan, Kind.SPMM, r)) for r in (9, 10, 12)] == [4, 2, 0]


def test_every_rank_receives_what_is_sent_to_it(make_run: MakeRun, plan_of: PlanOf) -> None:
    run = make_run("mixture", 5, model={**SAGE, "hidden": 7})
    plan = plan_of(profile(num_nodes=841), run)
    by_rank = [of_kind(plan, Kind.ALL_TO_ALL, rank) for rank in range(5)]
    rows = even_split(841, 5)
    for together, width in zip(
        zip(*by_rank, strict=True), plan.notes["relayout_widths"], strict=True
    ):
        columns = even_split(width, 5)
        for i, step in enumerate(together):
            sent = step.work.send_bytes
            assert sent is not None and sent[i] == 0
            assert step.bytes == sent.sum()
            received = sum(other.work.send_bytes[i] for other in together)
            to_columns = (841 - rows[i]) * columns[i]
            to_rows = rows[i] * (width - columns[i])
            assert received == 4 * (to_columns if step.name.endswith("to_columns") else to_rows)


def test_all_but_the_graph_falls_with_ranks(make_run: MakeRun, plan_of: PlanOf) -> None:
    few, many = (
        plan_of(profile(), make_run("mixture", ranks, model={**SAGE, "hidden": 36}))
        for ranks in (2, 12)
    )
    for name in ("x", "x_columns"):
        assert held(many)[name] * 6 == held(few)[name] > 0
    assert held(many)["topology"] == held(few)["topology"] == 8 * 841 + 4 * 8400
    for plan in (few, many):
        assert held(plan)["topology_t"] == 0  # undirected: one copy serves both ways
    kept = sum(held(few)[name] for name in ("topology", "scales", "parameters"))
    falls = [int(plan.peak_bytes()[0]) - kept for plan in (few, many)]
    assert falls[1] * 6 == pytest.approx(falls[0], rel=0.01)


def test_a_directed_graph_needs_its_transpose(make_run: MakeRun, plan_of: PlanOf) -> None:
    plan = plan_of(profile(undirected=False), make_run("mixture", 2))
    assert held(plan)["topology_t"] == held(plan)["topology"]


@pytest.mark.parametrize("model", [SAGE, {"kind": "gat", "heads": 2}])
def test_the_graph_and_its_profile_plan_the_same_bytes(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf, model: dict[str, Any]
) -> None:
    described = profile(num_nodes=5, num_edges=8, num_features=3, num_classes=2, num_train=2)
    run = make_run("mixture", 3, model=model)
    real, guessed = plan_of(path_graph, run), plan_of(described, run)
    assert real.moved_bytes() == guessed.moved_bytes()
    assert real.counted
    assert not guessed.counted
    assert "closed forms" in guessed.basis


def test_training_rows_are_counted_where_they_lie(path_graph: Graph) -> None:
    structure = MixtureStructure.of_rows(path_graph, (1, 0, 4))
    assert structure.train_rows.tolist() == [1, 0, 1]
    assert [structure.owned(rank).tolist() for rank in range(3)] == [[0], [], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("model", "why"),
    [({"input_dropout": 0.5}, "set it to 0"), ({"kind": "gat"}, "edge weights of gat change")],
)
def test_precomputation_of_what_changes_is_a_reasoned_skip(
    make_run: MakeRun, model: dict[str, Any], why: str
) -> None:
    mixture = APPROACHES.get("mixture")
    assert why in str(mixture.cannot_run(make_run("mixture", 2, model=model, precompute=True)))
    assert mixture.cannot_run(make_run("mixture", 2, model=model)) is None
    assert mixture.cannot_run(make_run("mixture", 2, precompute=True)) is None


def test_a_thousand_ranks_can_be_planned_from_a_profile(make_run: MakeRun, plan_of: PlanOf) -> None:
    reddit = load_profile("reddit")
    plan = plan_of(reddit, make_run("mixture", 1024, model={"hidden": 256}))
    # 2 layers, transform-first: 256 and 41 wide, both ways, there and back.
    bound = 4 * reddit.num_nodes * 4 * (256 + 41)
    assert 0.99 * bound < moved(plan) < bound
    assert np.shape(plan.resident[0].bytes) == (1024,)
